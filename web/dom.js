// SPDX-FileCopyrightText: The Picogram authors
// SPDX-License-Identifier: Apache-2.0
/** Elements and numbers. */

export const byId = (id) => document.getElementById(id);

/** A new element with these properties. */
export function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}

/** A number as a person writes it, with at most `digits` decimals. */
export function number(value, digits = 0) {
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** Bytes as a person says them. */
export function size(bytes) {
  if (bytes < 10_000) return `${number(bytes)} bytes`;
  return bytes < 1e6 ? `${number(bytes / 1000)} KB` : `${number(bytes / 1e6, 1)} MB`;
}

/** Bits per pixel, two significant digits. */
export function bpp(bytes, width, height) {
  return Number(((8 * bytes) / (width * height)).toPrecision(2)).toString();
}
