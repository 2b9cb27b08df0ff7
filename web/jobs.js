// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/**
 * One job, from its submission to its answer.
 *
 *   POST, Prefer: respond-async ──> 202 ──> its events, and again from the last one seen when they break off
 *                                           or, where no events come, its state once a second
 *                                       ──> its result, which is what the POST would have answered
 *
 * `tell(name, data)` hears queued, running, progress, preview, and waiting when the server is busy. Giving up (`signal`)
 * cancels the job.
 */

import { Problem, pause, request } from "./api.js";
import { readEvents } from "./events.js";

const BUSY = ["queue-full", "rate-limited", "broker-unavailable"];
const MAX_SUBMISSIONS = 4;
const MAX_SILENT_STREAMS = 3;
const FINAL = ["done", "failed", "canceled"];

/** The final Response. Rejects with the job's Problem, or with an AbortError after `signal`. */
export async function run(path, body, { headers = {}, signal, tell = () => {} } = {}) {
  const response = await submit(path, body, headers, signal, tell);
  if (response.status !== 202) return response;
  const job = await response.json();
  const links = addresses(job, response);
  try {
    await finished(links, signal, tell);
    return await result(links, signal);
  } catch (error) {
    if (signal?.aborted) cancel(links.self);
    throw error;
  }
}

async function submit(path, body, headers, signal, tell) {
  const key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0"));
  const options = {
    method: "POST",
    body,
    signal,
    headers: { Prefer: "respond-async", "Idempotency-Key": key.join(""), ...headers },
  };
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await request(path, options);
    } catch (error) {
      if (attempt === MAX_SUBMISSIONS || !BUSY.includes(error.slug)) throw error;
      const seconds = Math.min(15, Math.max(1, error.retryAfter));
      tell("waiting", { seconds });
      await pause(1000 * seconds, signal);
    }
  }
}

function addresses(job, response) {
  const self = job.links?.self ?? response.headers.get("location");
  return { self, result: job.links?.result ?? `${self}/result`, events: job.links?.events ?? `${self}/events` };
}

/** Until the job is done, one way or another. */
async function finished(links, signal, tell) {
  let last = "";
  for (let silent = 0; silent < MAX_SILENT_STREAMS; silent += 1) {
    try {
      const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
      const { body } = await request(links.events, { headers, signal, cache: "no-store" });
      for await (const { id, event, data } of readEvents(body)) {
        last = id || last;
        silent = -1;
        if (FINAL.includes(event)) return;
        tell(event, parsed(data));
      }
    } catch (error) {
      if (signal?.aborted || [401, 404].includes(error.status)) throw error;
    }
    await pause(300, signal);
  }
  await poll(links, signal, tell);
}

async function poll(links, signal, tell) {
  for (;;) {
    const job = await (await request(links.self, { signal, cache: "no-store" })).json();
    if (FINAL.includes(job.status)) return;
    tell(job.status, job);
    if (job.progress) tell("progress", { step: job.step, fraction: job.progress });
    await pause(1000, signal);
  }
}

async function result(links, signal) {
  for (;;) {
    try {
      return await request(links.result, { signal, cache: "no-store" });
    } catch (error) {
      if (error.slug !== "job-not-finished") throw error;
      await pause(1000 * Math.max(1, error.retryAfter), signal);
    }
  }
}

function cancel(address) {
  request(address, { method: "DELETE", keepalive: true }).catch((error) => {
    if (!(error instanceof Problem)) throw error; // a job that has ended by itself needs no canceling
  });
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    return {};
  }
}
