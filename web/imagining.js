// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/** In how many steps the decoder imagines what the file does not hold: a number, or nothing for what the profile takes. */

import { byId, number } from "./dom.js";

const MAX = 50;

export class Imagining {
  constructor() {
    this.field = byId("steps");
    this.field.addEventListener("input", () => this.#show());
    this.#show();
  }

  /** A whole number from 0, undefined where none is typed, or null while something else is. */
  get steps() {
    if (this.field.validity.badInput) return null;
    if (this.field.value === "") return undefined;
    const value = Number(this.field.value);
    return Number.isInteger(value) && value >= 0 && value <= MAX ? value : null;
  }

  #show() {
    const { steps } = this;
    byId("steps-meaning").textContent = meaning(steps);
  }
}

function meaning(steps) {
  if (steps === null) return `A whole number from 0 to ${number(MAX)}, please, or nothing.`;
  if (steps === undefined) return "As many as the profile takes. With 0, nothing is imagined.";
  if (steps === 0) return "Nothing is imagined: the sketch as the file holds it.";
  return "More steps take longer, and are not always better.";
}
