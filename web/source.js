// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/** Where files come from: dropped anywhere on the page, pasted, chosen, or a sample. */

import { Problem, request } from "./api.js";
import { byId } from "./dom.js";

/** `take(file)` gets every File; `fail(problem)` hears of samples that cannot be fetched. */
export function listenForFiles(take, fail) {
  const takeFirst = (files) => files?.length && take(files[0]);
  const input = byId("file");
  input.addEventListener("change", () => {
    takeFirst(input.files);
    input.value = ""; // the same file may be chosen again
  });
  document.addEventListener("paste", (event) => takeFirst(event.clipboardData?.files));
  listenForDrops(takeFirst);
  for (const button of document.querySelectorAll("[data-sample]")) {
    button.addEventListener("click", () => sample(button.dataset.sample).then(take, fail));
  }
}

function listenForDrops(takeFirst) {
  let depth = 0; // enter and leave come for every element on the way
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dragging", depth > 0);
  };
  document.addEventListener("dragenter", () => mark(1));
  document.addEventListener("dragleave", () => mark(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(-depth);
    takeFirst(event.dataTransfer?.files);
  });
}

async function sample(name) {
  const response = await request(`/web/samples/${name}.jpg`);
  return new File([await response.blob()], `${name}.jpg`, { type: "image/jpeg" });
}

/** Whether it is a picogram: by its name or by the first byte, which no image format begins with. */
export async function isPicogram(file) {
  if (file.name.toLowerCase().endsWith(".pico")) return true;
  const [first] = new Uint8Array(await file.slice(0, 1).arrayBuffer());
  return (first & 0xf8) === 0xb8;
}

/** {width, height} as the browser shows it, or null for formats that it does not know. */
export async function measure(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    return null;
  }
  return { width: image.naturalWidth, height: image.naturalHeight };
}

/** A problem of ours for files that cannot be what they should be. */
export function emptyFile(file) {
  return file.size ? null : new Problem("Empty file", `${file.name} holds no data.`);
}
