// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/** A file as one QR code: byte mode, error correction level L, four modules of white around it. */

import { qrcode } from "./vendor/qrcode-generator/qrcode.mjs";

/** Bytes that version 40 holds at level L (ISO/IEC 18004, table 7). */
export const CAPACITY = 2953;

const QUIET_ZONE = 4;
const PIXELS = 1400;

/** Draws it in whole pixels per module and says how many modules a side has. */
export function drawQr(canvas, data) {
  const code = qrcode(0, "L");
  // The library takes one byte a character.
  code.addData(Array.from(data, (byte) => String.fromCharCode(byte)).join(""), "Byte");
  code.make();
  const modules = code.getModuleCount();
  const scale = Math.max(4, Math.floor(PIXELS / (modules + 2 * QUIET_ZONE)));
  canvas.width = canvas.height = (modules + 2 * QUIET_ZONE) * scale;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#000";
  for (let row = 0; row < modules; row += 1) {
    for (let column = 0; column < modules; column += 1) {
      if (!code.isDark(row, column)) continue;
      context.fillRect((column + QUIET_ZONE) * scale, (row + QUIET_ZONE) * scale, scale, scale);
    }
  }
  return modules;
}
