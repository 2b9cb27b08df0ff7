// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/**
 * Server-sent events from a stream that fetch opened: EventSource can neither send an API key nor be told to stop retrying.
 */

/** Yields {id, event, data} for each event with data; comments are skipped, an event cut short by the end is dropped. */
export async function* readEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let fields = blank();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line !== "") add(fields, line);
        else {
          if (fields.data.length) yield { ...fields, data: fields.data.join("\n") };
          fields = blank(fields.id);
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function blank(id = "") {
  return { id, event: "message", data: [] };
}

function add(fields, line) {
  const colon = line.indexOf(":");
  if (colon === 0) return;
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (name === "data") fields.data.push(value);
  else if (name === "event" || name === "id") fields[name] = value;
}
