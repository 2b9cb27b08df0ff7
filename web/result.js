// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/** The cards below the picture: the file and its numbers, where its bytes went, its words, and all of it in hexadecimal. */

import { showBits } from "./bits.js";
import { bpp, byId, element, number, size } from "./dom.js";
import { CAPACITY, drawQr } from "./qr.js";

const MAX_HEX_BYTES = 4096;

/**
 * `result`: {data: Uint8Array, name, width, height, parts, caption, heard, warning, seconds, steps, picture: URL, original},
 * where `original` is the photo's bytes, `seconds` the pairs [what, seconds] that are known and `steps` null if it is not.
 */
export function showResult(result) {
  byId("results").hidden = false;
  byId("file-bytes").textContent = number(result.data.length);
  showFacts(result);
  showBits(byId("bits"), result.parts);
  showWords("caption-shown", result.caption);
  showWords("heard-shown", result.heard);
  byId("warning").hidden = !result.warning;
  byId("warning").textContent = result.warning;
  const file = new Blob([result.data], { type: "application/vnd.picogram" });
  offer(byId("save-pico"), URL.createObjectURL(file), `${result.name}.pico`);
  offer(byId("save-picture"), result.picture, `${result.name}.png`);
  const fits = result.data.length <= CAPACITY;
  byId("qr-button").hidden = !fits;
  byId("qr-note").hidden = fits;
  byId("qr-button").onclick = () => showQr(result);
  showHex(result.data);
}

/** Until there is a new one. */
export function hideResult() {
  byId("results").hidden = true;
  const old = byId("save-pico").href;
  if (old) URL.revokeObjectURL(old);
}

function showFacts({ data, width, height, original, seconds, steps }) {
  const facts = [
    ["Bits per pixel", bpp(data.length, width, height)],
    ["Picture", `${number(width)} × ${number(height)} pixels`],
  ];
  if (original) facts.push(["Of the original", `1/${number(original / data.length)} of ${size(original)}`]);
  if (typeof steps === "number") facts.push(["Imagined in", steps ? `${steps} ${steps === 1 ? "step" : "steps"}` : "nothing"]);
  for (const [what, time] of seconds) facts.push([what, `${number(time, 2)} s`]);
  byId("facts").replaceChildren(
    ...facts.map(([term, value]) => {
      const row = element("div");
      row.append(element("dt", { textContent: term }), element("dd", { textContent: value }));
      return row;
    }),
  );
}

function showWords(id, words) {
  const box = byId(id);
  box.hidden = !words;
  box.querySelector("blockquote").textContent = words ?? "";
}

function showHex(data) {
  const box = byId("hex");
  box.hidden = data.length > MAX_HEX_BYTES;
  const pairs = Array.from(data.subarray(0, MAX_HEX_BYTES), (byte) => byte.toString(16).padStart(2, "0"));
  box.querySelector("pre").textContent = box.hidden ? "" : pairs.join(" ");
}

function offer(link, url, name) {
  link.href = url;
  link.download = name;
}

async function showQr({ data, name }) {
  const dialog = byId("qr");
  const canvas = dialog.querySelector("canvas");
  const modules = drawQr(canvas, data);
  byId("qr-facts").textContent = `${number(data.length)} bytes in ${modules} × ${modules} modules, error correction level L.`;
  const link = byId("qr-save");
  if (link.href) URL.revokeObjectURL(link.href);
  const image = await new Promise((resolve) => {
    canvas.toBlob(resolve);
  });
  offer(link, URL.createObjectURL(image), `${name}-qr.png`);
  dialog.showModal();
}
