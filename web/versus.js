// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/** What the left half of the picture shows: the original, or a classical codec at no more bytes, coded when asked for. */

import * as codec from "./codec.js";
import { byId, size } from "./dom.js";
import { measure } from "./source.js";

const NAMES = { original: "Original", avif: "AVIF", webp: "WebP", jpeg: "JPEG" };

export class Versus {
  constructor(compare) {
    this.compare = compare;
    this.box = byId("versus");
    this.choices = [...this.box.querySelectorAll("input")];
    this.box.addEventListener("change", (event) => this.#choose(event.target.value));
    this.#forget();
  }

  /** `photo`: {file, url (null if the browser cannot show it), bytes (of the .pico file)}. The choice made stays. */
  show(photo) {
    this.#forget();
    this.photo = photo;
    this.box.hidden = false;
    this.compare.split();
    this.#choose(this.choices.find((input) => input.checked).value);
  }

  hide() {
    this.#forget();
    this.box.hidden = true;
  }

  #forget() {
    this.abort?.abort();
    this.abort = new AbortController();
    for (const { url } of Object.values(this.files ?? {})) URL.revokeObjectURL(url);
    this.files = {}; // by codec: {url, details}
    this.photo = null;
  }

  async #choose(choice) {
    const { photo, compare } = this;
    const name = NAMES[choice];
    if (choice === "original") {
      const why = photo.url ? "" : "This browser cannot show the original.";
      this.#left(photo.url, name, size(photo.file.size), why);
      return;
    }
    try {
      if (!this.files[choice]) {
        this.#left(null, name, "", `Coding ${name} at the same size …`);
        const found = await this.#code(choice, photo);
        if (photo !== this.photo) return;
        this.files[choice] = found;
      }
      const chosen = this.choices.find((input) => input.checked).value;
      if (chosen === choice) this.#left(this.files[choice].url, name, this.files[choice].details);
    } catch (error) {
      if (photo !== this.photo || error.name === "AbortError") return;
      const tooSmall = error.slug === "budget-too-small";
      const why = tooSmall ? `${name} has no file this small: ${error.detail}` : error.message;
      if (this.choices.find((input) => input.checked).value === choice) compare.show("left", null, "", why);
    }
  }

  async #code(choice, photo) {
    const file = await codec.reference(photo.file, choice, photo.bytes, { signal: this.abort.signal });
    const url = URL.createObjectURL(file);
    const coded = await measure(url);
    return { url, details: [size(file.size), coded && `${coded.width} × ${coded.height}`].filter(Boolean).join(", ") };
  }

  #left(url, name, details, why = "") {
    this.compare.show("left", url, name, why);
    this.compare.name(name, "Picogram", [details, size(this.photo.bytes)]);
  }
}
