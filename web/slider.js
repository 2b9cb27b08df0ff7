// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/**
 * Two pictures in one frame with a divide between them, moved by pointer or keys:
 * arrows 1 %, with Shift or as Page Up and Down 10 %, Home and End to the edges.
 */

const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };

export class Compare {
  constructor(root) {
    this.root = root;
    this.left = root.querySelector(".left");
    this.right = root.querySelector(".right");
    this.veil = root.querySelector(".veil");
    this.divide = root.querySelector(".divide");
    this.tags = [root.querySelector(".tag-left"), root.querySelector(".tag-right")];
    this.names = ["", ""];
    this.value = 50;
    this.divide.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("pointerdown", (event) => this.#grab(event));
    root.addEventListener("pointermove", (event) => {
      if (root.hasPointerCapture(event.pointerId)) this.#drag(event);
    });
  }

  /** The frame takes the picture's shape; small pictures are enlarged to twice their size at most. */
  shape(width, height) {
    this.root.style.setProperty("--ratio", width / height);
    this.root.style.maxWidth = `${Math.max(280, 2 * width)}px`;
  }

  /** One picture alone, perhaps with a line that says what it is. */
  single(url, description, tag = "") {
    this.#divided(false);
    this.#tag(0, "");
    this.#tag(1, tag);
    this.show("left", null);
    this.show("right", url, description);
  }

  /** Both pictures are shown; the divide glides to the middle. */
  split() {
    if (this.root.classList.contains("divided")) return;
    this.#divided(true);
    this.move(94);
    this.frame = requestAnimationFrame(() => {
      this.frame = requestAnimationFrame(() => {
        this.root.classList.add("glide");
        this.move(50);
      });
    });
  }

  /** `side` is left or right; without a URL it is empty, and the left one may say why. */
  show(side, url, description = "", why = "") {
    const image = this[side];
    image.hidden = !url;
    image.alt = description;
    if (url) image.src = url;
    else image.removeAttribute("src");
    if (side === "left") {
      this.veil.hidden = !why;
      this.veil.textContent = why;
    }
  }

  /** What each side is, `details` only for those who see it. */
  name(left, right, details = ["", ""]) {
    this.names = [left, right];
    [left, right].forEach((name, side) => this.#tag(side, [name, details[side]].filter(Boolean).join(" · ")));
    this.move(this.value);
  }

  /** The share of the left picture, 0 to 100. */
  move(value) {
    this.value = Math.min(100, Math.max(0, value));
    const rounded = Math.round(this.value);
    this.root.style.setProperty("--split", `${this.value}%`);
    this.divide.setAttribute("aria-valuenow", rounded);
    const [left, right] = this.names;
    this.divide.setAttribute("aria-valuetext", `${rounded} % ${left}, ${100 - rounded} % ${right}`);
  }

  #divided(yes) {
    this.#stopGliding();
    this.root.classList.toggle("divided", yes);
    this.divide.hidden = !yes;
  }

  #stopGliding() {
    cancelAnimationFrame(this.frame);
    this.root.classList.remove("glide");
  }

  #tag(side, text) {
    this.tags[side].textContent = text;
    this.tags[side].hidden = !text;
  }

  #key(event) {
    const edges = { Home: 0, End: 100 };
    const step = STEPS[event.key] * (event.shiftKey && event.key.startsWith("Arrow") ? 10 : 1);
    const value = event.key in edges ? edges[event.key] : this.value + step;
    if (Number.isNaN(value)) return;
    event.preventDefault();
    this.#stopGliding();
    this.move(value);
  }

  #grab(event) {
    if (event.button !== 0 || this.divide.hidden) return;
    event.preventDefault();
    this.#stopGliding();
    this.root.setPointerCapture(event.pointerId);
    this.divide.focus({ preventScroll: true, focusVisible: false });
    this.#drag(event);
  }

  #drag(event) {
    const { left, width } = this.root.getBoundingClientRect();
    this.move((100 * (event.clientX - left)) / width);
  }
}
