// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/**
 * Requests to the server this page came from: answers come back as Response, everything else as a Problem.
 *
 * A 401 asks for an API key, once for all requests that wait, and tries again with it.
 */

const KEY = "picogram-api-key";
const ROOT = new URL("..", import.meta.url); // of the server, which a proxy may put below a path

/** What went wrong, in the words of the server (RFC 9457) where it said some. */
export class Problem extends Error {
  constructor(title, detail, { status = 0, type = "", retryAfter = 0 } = {}) {
    super(detail ? `${title}: ${detail}` : title);
    Object.assign(this, { title, detail, status, retryAfter, slug: type.split("/").pop() });
  }

  static async from(response) {
    const retryAfter = Number(response.headers.get("retry-after")) || 0;
    let body = {};
    try {
      body = await response.json();
    } catch {
      // A proxy's page, perhaps: the status has to do.
    }
    const title = body.title ?? `The server answered ${response.status}`;
    return new Problem(title, body.detail ?? "", { status: response.status, type: body.type, retryAfter });
  }
}

let askForKey = null;
let asking = null;

/** `ask(refused)` shows who sits there that a key is needed and resolves to one, or to null. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export function apiKey() {
  return sessionStorage.getItem(KEY);
}

export function setApiKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** Like fetch, with the key; rejects with a Problem, or with an AbortError when `signal` says so. */
export async function request(path, options = {}) {
  for (;;) {
    const key = apiKey();
    const response = await reach(path, key, options);
    if (response.ok) return response;
    const problem = await Problem.from(response);
    if (response.status !== 401 || !askForKey || !(await newKey(key))) throw problem;
    options.signal?.throwIfAborted();
  }
}

async function reach(path, key, options) {
  const headers = new Headers(options.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  try {
    return await fetch(address(path), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("No connection", "The server cannot be reached. Is it still running?");
  }
}

/** Paths of the server itself are below ROOT; one that it handed out with its prefix is as it stands. */
function address(path) {
  return /^\/(v1|web)\//.test(path) ? new URL(path.slice(1), ROOT) : path;
}

async function newKey(refused) {
  if (apiKey() !== refused) return true; // another request has asked meanwhile
  asking ??= askForKey(Boolean(refused)).finally(() => {
    asking = null;
  });
  const key = await asking;
  if (key) setApiKey(key);
  return Boolean(key);
}

/** Resolves after that time, or rejects as soon as `signal` is aborted. */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted) stop();
  });
}
