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
import { Imagining } from "./imagining.js";
import { Objects } from "./objects.js";
import { hideResult, showResult } from "./result.js";
import { Compare } from "./slider.js";
import { emptyFile, isPicogram, listenForFiles, measure } from "./source.js";
import { Status, showProblem } from "./status.js";
import { Versus } from "./versus.js";

const PLAIN = { name: "base", label: "Picture only", explanation: "", sections: [], guided: false, default: true };
const PREVIEW = /^image\/(png|jpeg|webp|avif)$/;

const budget = new Budget();
const imagining = new Imagining();
const objects = new Objects();
const compare = new Compare(byId("compare"));
const versus = new Versus(compare);
const status = new Status();
let profiles = [PLAIN]; // what the server offers
let photo = null; // {file, url, size}
let latest = null; // {file, name, data, seed, coding, result}: what was drawn last, from the photo `file` or a .pico (null)
let drawn = null; // URL of its picture
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
  byId("compare").classList.remove("early");
  if (hadFocus) byId(yes ? "cancel" : "encode").focus({ preventScroll: true });
}

function tell(name, data) {
  if (name === "preview" && PREVIEW.test(data.media_type)) {
    previewed = true;
    versus.hide();
    byId("compare").classList.add("early");
    const url = `data:${data.media_type};base64,${data.data}`;
    if (data.step === "decoder") compare.single(url, "The sketch in the file", "Sketch · nothing imagined yet");
    else compare.single(url, "An early picture");
  }
  status.tell(name, data);
}

/** An early picture of something that came to nothing does not stay. */
function forgetPreview() {
  if (previewed && latest) present();
  else if (previewed && photo?.size) compare.single(photo.url, "Your photo");
  if (!photo && !latest) showDrop();
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
  photo = drawn = latest = null;
  previewed = false;
  versus.hide();
  objects.hide();
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
  const { steps } = imagining;
  if (!photo || bytes === null || steps === null) {
    byId(bytes === null ? "bytes" : "steps").focus();
    return;
  }
  const profile = new FormData(byId("controls")).get("profile") ?? "base";
  const caption = takesCaption(profile) ? byId("caption").value.trim() : "";
  const focus = byId("focus").value.trim();
  const { file } = photo;
  await undertake("Sending the photo", async (signal) => {
    status.stage(0, 0.7, "Sending the photo");
    const coded = await codec.encode(file, { bytes, profile, caption, focus }, { signal, tell });
    const [picture, named] = await Promise.all([draw(coded.data, { steps }, signal), objectsIn(coded, signal)]);
    signal.throwIfAborted();
    const warning = coded.warning || picture.warning;
    const result = { ...coded, ...picture, caption: coded.caption, warning, objects: named };
    latest = { file, name: stem(file.name), data: coded.data, seed: 0, coding: coded.seconds, result };
    present();
    byId("encode").textContent = "Encode again";
    status.note(`Done: ${number(coded.data.length)} bytes.`);
    reveal();
  });
}

async function openPicogram(file) {
  const { steps } = imagining;
  if (steps === null) {
    byId("steps").focus();
    return;
  }
  abort?.abort();
  clear();
  showDrop();
  await undertake("Reading the file", async (signal) => {
    const data = new Uint8Array(await file.arrayBuffer());
    const read = codec.inspect(data, { signal }).then((found) => {
      signal.throwIfAborted();
      showView(file, found); // what comes early is shown in it
      return found;
    });
    const [picture, facts] = await Promise.all([draw(data, { steps }, signal), read]);
    signal.throwIfAborted();
    latest = { file: null, name: stem(file.name), data, seed: 0, coding: null, result: { ...picture, ...facts } };
    present();
    status.note(`Done: ${number(data.length)} bytes.`);
    reveal();
  });
}

/** The same file with another seed, to see what is imagined and what is not. */
async function imagineAgain() {
  const { steps } = imagining;
  if (steps === null) {
    byId("steps").focus();
    return;
  }
  const { data, seed, result } = latest;
  await undertake("Drawing the picture", async (signal) => {
    const picture = await draw(data, { steps, seed: seed + 1 }, signal, 0);
    signal.throwIfAborted();
    const { caption, warning } = result;
    latest = { ...latest, seed: seed + 1, result: { ...result, ...picture, caption, warning } };
    present();
    status.note(picture.steps === 0 ? "Done: nothing was imagined." : "Done: imagined anew.");
    reveal();
  });
}

async function objectsIn(coded, signal) {
  return coded.parts.objects > 0 ? (await codec.inspect(coded.data, { signal })).objects : [];
}

async function draw(data, wish, signal, from = 0.7) {
  status.stage(from, 1, "Drawing the picture");
  return codec.decode(data, wish, { signal, tell });
}

/** The latest picture, what it is compared with, and everything about the file below. */
function present() {
  const { file, name, data, coding, result } = latest;
  previewed = false;
  if (drawn) URL.revokeObjectURL(drawn);
  drawn = URL.createObjectURL(result.picture);
  compare.shape(result.width, result.height);
  if (file) {
    compare.show("right", drawn, result.caption || "The picture drawn from the file");
    versus.show({ file, url: photo.size && photo.url, bytes: data.length });
  } else compare.single(drawn, result.caption || "The picture in the file");
  objects.show(result.objects);
  const seconds = times(coding, result.seconds);
  showResult({ ...result, name, data, original: file?.size, seconds, picture: drawn });
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

/** What the server offers; see `profile_details` of /v1/models. */
function showProfiles(offered) {
  profiles = offered;
  const labels = offered.map(({ name, label: title, explanation, default: checked }) => {
    const input = element("input", { type: "radio", name: "profile", value: name, checked });
    const label = element("label");
    label.append(input, element("span", { textContent: title }), element("small", { textContent: explanation }));
    return label;
  });
  byId("profiles").querySelector(".profile-list").replaceChildren(...labels);
}

function takesCaption(name) {
  const profile = profiles.find((each) => each.name === name) ?? PLAIN;
  return profile.guided || profile.sections.includes("caption");
}

function setUp() {
  setUpDialogs();
  showProfiles([PLAIN]);
  byId("profiles").addEventListener("change", (event) => {
    if (event.target.name === "profile") byId("caption-group").hidden = !takesCaption(event.target.value);
  });
  byId("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!abort) encodePhoto();
  });
  byId("cancel").addEventListener("click", () => abort?.abort());
  byId("another").addEventListener("click", startOver);
  byId("again").addEventListener("click", () => !abort && imagineAgain());
  listenForFiles(take, showProblem);
  codec.catalogue().then(({ profile_details: offered }) => showProfiles(offered), showProblem);
}

setUp();
