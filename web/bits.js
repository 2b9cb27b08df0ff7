// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/** Where the bytes of a file went: a stacked bar, and a table with the same numbers. */

import { element, number } from "./dom.js";

const PARTS = [
  ["latent", "Picture", "the sketch it is drawn from"],
  ["caption", "Caption", "what it shows, in words"],
  ["objects", "Objects", "what is where"],
  ["header", "Header", "size, model, checksum"],
];

/** From the headers of an encoded file: bytes by part. */
export function partsFromHeaders(headers) {
  return Object.fromEntries(PARTS.map(([part]) => [part, Number(headers.get(`x-picogram-${part}-bytes`))]));
}

/** The same from what /v1/inspect says; the header has what the sections leave. */
export function partsFromFacts(facts) {
  const parts = Object.fromEntries(PARTS.map(([part]) => [part, facts.sections[part] ?? 0]));
  parts.header = facts.file_bytes - parts.latent - parts.caption - parts.objects;
  return parts;
}

/** Parts without a byte are left out. */
export function showBits(container, parts) {
  const spent = PARTS.filter(([part]) => parts[part] > 0);
  const total = spent.reduce((sum, [part]) => sum + parts[part], 0);
  const bar = element("div", { className: "bar", ariaHidden: "true" });
  const table = element("table", { className: "parts" });
  table.append(element("caption", { className: "hidden", textContent: "Bytes and share of each part of the file" }));
  const body = table.createTBody();
  for (const [part, title, meaning] of spent) {
    const piece = element("span", { className: `part-${part}` });
    piece.style.flexGrow = parts[part];
    bar.append(piece);
    const head = element("th", { scope: "row" });
    head.append(element("span", { className: `dot part-${part}` }), title, element("small", { textContent: meaning }));
    const share = `${number((100 * parts[part]) / total, parts[part] < total / 10 ? 1 : 0)} %`;
    const row = body.insertRow();
    row.dataset.part = part;
    row.append(head, element("td", { textContent: bytes(parts[part]) }), element("td", { textContent: share }));
  }
  container.replaceChildren(bar, table);
}

function bytes(count) {
  return `${number(count)} ${count === 1 ? "byte" : "bytes"}`;
}
