// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/**
 * The page: a photo comes in, is coded and drawn again, and is compared.
 *
 *   source ──photo──> encode ──file──> decode ──picture──> compare, result
 *          ──.pico─────────────────────^
 */

import { Budget } from "./budget.js";
import * as codec from "./codec.js";
import { setUpDialogs } from "./dialogs.js";
import { byId, element, number, size } from "./dom.js";
import { hideResult, showResult } from "./result.js";
import { Compare } from "./slider.js";
import { emptyFile, isPicogram, listenForFiles, measure } from "./source.js";
import { Status, showProblem } from "./status.js";
import { Versus } from "./versus.js";

const PROFILES = {
  base: ["Picture only", "all bytes for the sketch"],
  stc: ["Picture and caption", "a few bytes of words beside the sketch"],
};
const PREVIEW = /^image\/(png|jpeg|webp|avif)$/;

const budget = new Budget();
const compare = new Compare(byId("compare"));
const versus = new Versus(compare);
const status = new Status();
let photo = null; // {file, url, size}
let drawn = null; // URL of the latest picture
let abort = null; // of what is going on
let previewed = false; // whether an early picture hides what was shown before

/** Runs `work(signal)`; what was going on before is given up. */
async function undertake(start, work) {
  abort?.abort();
  const mine = (abort = new AbortController());
  busy(true);
  showProblem(null);
  status.start(start);
  try {
    await work(mine.signal);
  } catch (error) {
    if (abort !== mine) return;
    forgetPreview();
    if (mine.signal.aborted) status.note("Canceled.");
    else {
      status.end();
      showProblem(error);
    }
  } finally {
    if (abort === mine) {
      abort = null;
      busy(false);
    }
  }
}

function busy(yes) {
  const hadFocus = [byId("encode"), byId("cancel")].includes(document.activeElement);
  byId("encode").hidden = yes;
  byId("cancel").hidden = !yes;
  byId("encode").disabled = !photo;
  byId("compare").classList.toggle("busy", yes);
  if (hadFocus) byId(yes ? "cancel" : "encode").focus({ preventScroll: true });
}

function tell(name, data) {
  if (name === "preview" && PREVIEW.test(data.media_type)) {
    previewed = true;
    versus.hide();
    compare.single(`data:${data.media_type};base64,${data.data}`, "An early picture");
  }
  status.tell(name, data);
}

/** An early picture of something that came to nothing does not stay. */
function forgetPreview() {
  if (previewed && photo?.size) {
    hideResult();
    compare.single(photo.url, "Your photo");
  }
  previewed = false;
}

async function take(file) {
  const problem = emptyFile(file);
  if (problem) {
    showProblem(problem);
    return;
  }
  if (await isPicogram(file)) await openPicogram(file);
  else await takePhoto(file);
}

async function takePhoto(file) {
  abort?.abort();
  clear();
  const url = URL.createObjectURL(file);
  photo = { file, url, size: await measure(url) };
  showView(file, photo.size);
  if (photo.size) compare.single(url, "Your photo");
  else compare.show("left", null, "", "This browser cannot show such a file. The server may be able to read it.");
  budget.forPicture(photo.size);
  byId("encode").disabled = false;
  byId("encode").textContent = "Encode";
}

/** Nothing of the photo before is left. */
function clear() {
  for (const url of [photo?.url, drawn]) if (url) URL.revokeObjectURL(url);
  photo = drawn = null;
  previewed = false;
  versus.hide();
  hideResult();
  showProblem(null);
  status.end();
  budget.forPicture(null);
  byId("encode").disabled = true;
}

function showView(file, pixels) {
  byId("drop").hidden = true;
  byId("view").hidden = false;
  const shape = pixels && `${pixels.width} × ${pixels.height}`;
  byId("source").textContent = [file.name, shape, size(file.size)].filter(Boolean).join(" · ");
  byId("source").title = file.name;
  if (pixels) compare.shape(pixels.width, pixels.height);
}

async function encodePhoto() {
  const { bytes } = budget;
  if (!photo || bytes === null) {
    byId("bytes").focus();
    return;
  }
  const profile = new FormData(byId("controls")).get("profile") ?? "base";
  const caption = profile === "base" ? "" : byId("caption").value.trim();
  const { file, url, size: pixels } = photo;
  await undertake("Sending the photo", async (signal) => {
    status.stage(0, 0.7, "Sending the photo");
    const coded = await codec.encode(file, { bytes, profile, caption }, { signal, tell });
    const picture = await draw(coded.data, signal);
    signal.throwIfAborted();
    const seconds = times(coded.seconds, picture.seconds);
    const warning = coded.warning || picture.warning;
    showDrawn(file, { ...coded, ...picture, caption: coded.caption, warning, seconds });
    versus.show({ file, url: pixels && url, bytes: coded.data.length });
    byId("encode").textContent = "Encode again";
    status.note(`Done: ${number(coded.data.length)} bytes.`);
    reveal();
  });
}

async function openPicogram(file) {
  abort?.abort();
  clear();
  showDrop();
  await undertake("Reading the file", async (signal) => {
    const data = new Uint8Array(await file.arrayBuffer());
    const [picture, facts] = await Promise.all([draw(data, signal), codec.inspect(data, { signal })]);
    signal.throwIfAborted();
    showView(file, picture);
    showDrawn(null, { data, ...picture, ...facts, name: stem(file.name), seconds: times(null, picture.seconds) });
    compare.single(drawn, facts.caption || "The picture in the file");
    status.note(`Done: ${number(data.length)} bytes.`);
    reveal();
  });
}

async function draw(data, signal) {
  status.stage(0.7, 1, "Drawing the picture");
  return codec.decode(data, { signal, tell });
}

/** The picture on the right, and everything about the file below. */
function showDrawn(file, result) {
  previewed = false;
  if (drawn) URL.revokeObjectURL(drawn);
  drawn = URL.createObjectURL(result.picture);
  compare.shape(result.width, result.height);
  compare.show("right", drawn, result.caption || "The picture drawn from the file");
  showResult({ name: file && stem(file.name), original: file?.size, ...result, picture: drawn });
}

function times(coding, drawing) {
  const known = [
    ["Coded in", coding],
    ["Drawn in", drawing],
  ];
  return known.filter(([, seconds]) => seconds !== null);
}

function stem(name) {
  return name.replace(/\.[^.]*$/, "") || "picture";
}

/** On a phone the picture is above what was pressed. */
function reveal() {
  const { top } = byId("work").getBoundingClientRect();
  if (top < 0) byId("work").scrollIntoView({ block: "start", behavior: "smooth" });
}

function showDrop() {
  byId("view").hidden = true;
  byId("drop").hidden = false;
}

function startOver() {
  abort?.abort();
  clear();
  showDrop();
  byId("file").focus();
}

function showProfiles(names) {
  const labels = names.map((name, index) => {
    const [title, meaning] = PROFILES[name] ?? [name, ""];
    const input = element("input", { type: "radio", name: "profile", value: name, checked: index === 0 });
    const label = element("label");
    label.append(input, element("span", { textContent: title }), element("small", { textContent: meaning }));
    return label;
  });
  byId("profiles").querySelector(".profile-list").replaceChildren(...labels);
}

function setUp() {
  setUpDialogs();
  showProfiles(["base"]);
  byId("profiles").addEventListener("change", (event) => {
    if (event.target.name === "profile") byId("caption-group").hidden = event.target.value === "base";
  });
  byId("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!abort) encodePhoto();
  });
  byId("cancel").addEventListener("click", () => abort?.abort());
  byId("another").addEventListener("click", startOver);
  listenForFiles(take, showProblem);
  codec.catalogue().then(({ profiles }) => showProfiles(profiles), showProblem);
}

setUp();
