// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/** Dialogs close by their buttons, by Escape and by a click beside them; one of them asks for the API key. */

import { apiKey, onKeyNeeded, setApiKey } from "./api.js";
import { byId } from "./dom.js";

export function setUpDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
    });
  }
  byId("key-button").hidden = !apiKey();
  byId("key-button").addEventListener("click", async () => {
    const key = await askForKey(false);
    if (key) setApiKey(key);
  });
  onKeyNeeded(askForKey);
}

/** The key that is typed, or null. */
function askForKey(refused) {
  const dialog = byId("key");
  const field = byId("key-value");
  field.value = "";
  byId("key-why").textContent = refused
    ? "The key in use was refused. Try another one."
    : "Whoever runs the server hands them out.";
  dialog.showModal();
  return new Promise((resolve) => {
    let key = null;
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      key = field.value.trim() || null;
      byId("key-button").hidden = !key;
      dialog.close();
    };
    dialog.addEventListener("close", () => resolve(key), { once: true });
  });
}
