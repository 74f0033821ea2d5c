/** Photos on their way to the server: chosen, dropped, pasted or taken, and made smaller only where they must be. */

import { h } from "./dom.js";

export const LIMIT = 10 * 2 ** 20; // bytes of one request
export const MAX_PHOTOS = 32; // photos of one request
const SIDE = 1600; // pixels, of a photo that was made smaller; encoders look at 96 to 518
const READ = new Set(["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"]);

/** The photos among files: a text or a folder beside them is left out. */
export function photosOf(files) {
  return [...files].filter((file) => file.type.startsWith("image/") || (file.type === "" && file.size > 0));
}

/**
 * A photo as the server takes it: as it is, unless it is too large or of a kind that only browsers read (HEIC).
 * @param {Blob} file
 * @param {number} room bytes that it may take
 * @returns {Promise<Blob>}
 */
export async function ready(file, room = LIMIT) {
  if (file.size <= room && (READ.has(file.type) || file.type === "")) return file;
  try {
    return await smaller(file);
  } catch {
    return file; // the browser cannot read it either: the server says what is wrong with it
  }
}

async function smaller(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = h("canvas", { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), "image/jpeg", 0.92);
  });
}

/** Photos as the texts that JSON carries, so that all of them fit into one request. */
export async function encoded(files) {
  const room = Math.floor((0.74 * LIMIT) / files.length); // base64 takes four bytes for three
  return Promise.all(files.map(async (file) => base64(await ready(file, room))));
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The photo can no longer be read. Choose it again."));
    reader.readAsDataURL(blob);
  });
}

/** A button that opens the file chooser, or the camera of a phone. */
export function chooser(label, { camera = false, kind = "", several = true, chosen }) {
  const field = h("input", {
    type: "file",
    accept: "image/*",
    multiple: several && !camera,
    capture: camera ? "environment" : null,
    class: "unseen",
    "aria-label": label,
    onchange: () => {
      const files = photosOf(field.files);
      field.value = ""; // the same photo can be chosen again
      if (files.length) chosen(files);
    },
  });
  return h("label", { class: `button ${kind}` }, field, h("span", { "aria-hidden": "true" }, label));
}

/** Whether the device is held in the hand, so that "take a photo" means its camera. */
export const hasCamera = () => matchMedia("(pointer: coarse)").matches;
