// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/** The server's functions: photo to file, file to picture, file to facts, photo to another codec's file. */

import { request } from "./api.js";
import { partsFromFacts, partsFromHeaders } from "./bits.js";
import { run } from "./jobs.js";

const PICOGRAM = "application/vnd.picogram";

/** What this server can do. */
export async function catalogue() {
  return (await request("/v1/models")).json();
}

/** `wish`: {bytes, profile, caption, focus}, words may be empty. Resolves to the file and what the server says of it. */
export async function encode(photo, { bytes, profile, ...wishes }, options) {
  const words = Object.fromEntries(Object.entries(wishes).filter(([, text]) => text));
  const response = Object.keys(words).length
    ? await run("/v1/encode", form({ image: photo, bytes, profile, ...words }), options)
    : await run(`/v1/encode?${new URLSearchParams({ bytes, profile })}`, photo, options);
  const { headers } = response;
  const data = new Uint8Array(await response.arrayBuffer());
  const facts = await described(headers);
  return { data, parts: partsFromHeaders(headers), heard: facts.heard ?? "", ...said(headers, facts) };
}

/** The picture as PNG, which loses nothing. `wish`: {steps, seed}, either may be left out; `steps` says how many it took. */
export async function decode(data, wish, options = {}) {
  const headers = { "Content-Type": PICOGRAM, Accept: "image/png" };
  const given = Object.entries(wish).filter(([, value]) => value !== undefined);
  const query = given.length ? `?${new URLSearchParams(given)}` : "";
  const response = await run(`/v1/decode${query}`, new Blob([data]), { ...options, headers });
  const steps = response.headers.get("x-picogram-steps");
  const picture = await response.blob();
  return { picture, steps: steps && Number(steps), ...said(response.headers, await described(response.headers)) };
}

/** What a file says about itself. */
export async function inspect(data, options = {}) {
  const response = await run("/v1/inspect", new Blob([data]), { ...options, headers: { "Content-Type": PICOGRAM } });
  const facts = await response.json();
  const { caption = "", objects = [] } = facts.description ?? {};
  return { parts: partsFromFacts(facts), width: facts.width, height: facts.height, caption, objects };
}

/** The same photo by a classical codec, in no more bytes. */
export async function reference(photo, codec, bytes, options) {
  const response = await run(`/v1/reference?${new URLSearchParams({ codec, bytes })}`, photo, options);
  return response.blob();
}

function form(fields) {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) data.append(name, value);
  return data;
}

/** The short facts are in headers, words in the job's. */
function said(headers, facts) {
  const number = (name) => Number(headers.get(`x-picogram-${name}`));
  const run = /\brun;dur=([\d.]+)/.exec(headers.get("server-timing") ?? "");
  return {
    width: number("width"),
    height: number("height"),
    caption: facts.description?.caption ?? "",
    warning: headers.get("x-picogram-warning") ?? "",
    seconds: run && Number(run[1]) / 1000,
  };
}

/** What is too long for headers, where a link leads there. */
async function described(headers) {
  const [, path] = /<([^>]+)>; rel="describedby"/.exec(headers.get("link") ?? "") ?? [];
  if (!path) return {};
  try {
    return (await (await request(path, { cache: "no-store" })).json()).result ?? {};
  } catch {
    return {}; // the result is there: words that cannot be had do not cost it
  }
}
