// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/** What is going on, and what went wrong. */

import { byId, number } from "./dom.js";

const WORK = {
  encoder: "Coding the picture",
  decoder: "Drawing the picture",
  lmm: "Working on the words",
  inspector: "Reading the file",
};

/** Shows the stages of one undertaking in a bar: each stage has its share of it, from..to. */
export class Status {
  constructor() {
    this.box = byId("status");
    this.bar = byId("progress");
    this.text = byId("status-text");
  }

  start(text) {
    this.box.hidden = this.bar.hidden = false;
    this.from = 0;
    this.to = 1;
    this.bar.removeAttribute("value"); // a bar without one tells that something happens
    this.#say(text);
  }

  /** The next stage takes the bar from `from` to `to`; `what` is what it does while nobody knows better. */
  stage(from, to, what) {
    Object.assign(this, { from, to });
    this.bar.value = from;
    this.#say(what);
  }

  /** An event of a job. */
  tell(name, data) {
    if (name === "waiting") this.#say(`The server is busy; trying again in ${number(data.seconds)} s`);
    if (name === "queued") this.#say("Waiting in the queue");
    if (name === "running") this.#say(WORK[data.step] ?? "Working");
    if (name === "progress" && typeof data.fraction === "number") {
      this.bar.value = this.from + (this.to - this.from) * data.fraction;
      this.#say(`${WORK[data.step] ?? "Working"}: ${number(100 * data.fraction)} %`);
    }
  }

  end() {
    this.box.hidden = true;
  }

  /** One line that stays. */
  note(text) {
    this.box.hidden = false;
    this.bar.hidden = true;
    this.#say(text);
  }

  #say(text) {
    if (this.text.textContent !== text) this.text.textContent = text;
  }
}

/** Shows a Problem, or nothing for null. */
export function showProblem(problem) {
  const box = byId("problem");
  const [title, detail] = box.children;
  box.hidden = !problem;
  title.textContent = problem?.title ?? problem?.name ?? "";
  detail.textContent = problem ? (problem.detail ?? problem.message) : "";
}
