// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/** The objects that a file names: a list to switch them on and off, and their masks over the picture. */

import { byId, element } from "./dom.js";

/** By index; the style sheet has a dot of the same colour for each. */
const COLOURS = ["#7c5cc4", "#0f9d8a", "#d9730d", "#2f6fd0", "#c2407f", "#6f8f1e", "#a3591b", "#5a6672"];
const OPACITY = 0.45;

export class Objects {
  constructor() {
    this.box = byId("objects-shown");
    this.list = this.box.querySelector("ul");
    this.canvas = byId("masks");
    this.hide();
  }

  /** `objects`: [{name, detail, mask: rows of "." and "#"}], all of them on at first. */
  show(objects) {
    this.objects = objects.map((each, index) => ({ ...each, colour: COLOURS[index % COLOURS.length], on: true }));
    this.list.replaceChildren(...this.objects.map((each, index) => this.#item(each, index)));
    this.box.hidden = this.objects.length === 0;
    this.#paint();
  }

  hide() {
    this.show([]);
  }

  #item(each, index) {
    const item = element("li");
    const button = element("button", { type: "button" });
    button.setAttribute("aria-pressed", "true");
    const dot = element("span", { className: `dot object-${index % COLOURS.length}` });
    button.append(dot, element("span", { textContent: each.name }));
    if (each.detail) button.append(element("small", { textContent: each.detail }));
    button.addEventListener("click", () => {
      each.on = !each.on;
      button.setAttribute("aria-pressed", each.on);
      this.#paint();
    });
    item.append(button);
    return item;
  }

  /** A mask lies over the whole picture, whatever its shape; the canvas is as fine as the finest and is stretched. */
  #paint() {
    const shown = this.objects.filter(({ on, mask }) => on && mask.length > 0);
    const side = Math.max(0, ...shown.map(({ mask }) => mask.length));
    this.canvas.hidden = side === 0;
    [this.canvas.width, this.canvas.height] = [side, side];
    const context = this.canvas.getContext("2d");
    context.globalAlpha = OPACITY;
    for (const { mask, colour } of shown) {
      const cell = side / mask.length;
      context.fillStyle = colour;
      mask.forEach((row, y) => {
        [...row].forEach((mark, x) => {
          if (mark === "#") context.fillRect(x * cell, y * cell, cell, cell);
        });
      });
    }
  }
}
