// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/** How many bytes the file may have: a number, a slider that is even in ratios (100 to 10,000 bytes), and presets. */

import { bpp, byId, number } from "./dom.js";
import { CAPACITY } from "./qr.js";

const LOWEST = 100;
const HIGHEST = 10_000;
const MAX = 1_000_000;

export class Budget {
  constructor() {
    this.field = byId("bytes");
    this.range = byId("bytes-range");
    this.presets = [...document.querySelectorAll("[data-bytes]")];
    this.picture = null;
    this.field.addEventListener("input", () => this.#show());
    this.range.addEventListener("input", () => this.set(rounded(fromRange(this.range))));
    for (const preset of this.presets) {
      preset.addEventListener("click", () => this.set(Number(preset.dataset.bytes)));
    }
    this.#show();
  }

  /** A whole number from 1, or null while something else is typed. */
  get bytes() {
    const value = Number(this.field.value);
    return Number.isInteger(value) && value >= 1 && value <= MAX ? value : null;
  }

  set(bytes) {
    this.field.value = bytes;
    this.#show();
  }

  /** {width, height}, to tell bits per pixel; null when unknown. */
  forPicture(picture) {
    this.picture = picture;
    this.#show();
  }

  #show() {
    const { bytes } = this;
    for (const preset of this.presets) preset.setAttribute("aria-pressed", Number(preset.dataset.bytes) === bytes);
    const rate = byId("rate");
    if (bytes === null) {
      rate.textContent = `A whole number from 1 to ${number(MAX)}, please.`;
      return;
    }
    const range = this.range;
    range.value = (range.max * Math.log(bytes / LOWEST)) / Math.log(HIGHEST / LOWEST);
    const perPixel = this.picture && `${bpp(bytes, this.picture.width, this.picture.height)} bits per pixel`;
    range.setAttribute("aria-valuetext", [`${number(bytes)} bytes`, perPixel].filter(Boolean).join(", "));
    const fits = bytes <= CAPACITY ? "fits a QR code" : "too large for a QR code";
    rate.textContent = [perPixel, fits].filter(Boolean).join(" · ");
  }
}

function fromRange(range) {
  return LOWEST * (HIGHEST / LOWEST) ** (range.value / range.max);
}

function rounded(bytes) {
  const step = bytes < 1000 ? 10 : 50;
  return step * Math.round(bytes / step);
}
