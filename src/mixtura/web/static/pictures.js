/** Small pictures of the catalog: fetched with the token, a few at a time, when they come into view. */

import { bytes } from "./api.js";
import { h, pause } from "./dom.js";

const AT_ONCE = 4;
const PACE = 100; // milliseconds that each takes at least, so as to stay below the 50 requests a second of the server
const KEPT = 400; // pictures in memory

const kept = new Map(); // address -> promise of an object URL
const waiting = [];
const underway = new Set();
let held = false;

const works = new WeakMap();
const seen = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      works.get(target)();
    }
  },
  { rootMargin: "200px" },
);

/** Do something once, when an element is about to be seen. */
export function whenSeen(node, work) {
  works.set(node, work);
  seen.observe(node);
  return node;
}

/**
 * A square place for a picture, of the same size before and after it has come.
 * @param {string | null | undefined} address of the server, or a blob: address, or null where there is none
 * @param {string} alt empty where a text beside it says the same
 */
export function picture(address, alt) {
  if (!address) return h("span", { class: "thumb blank", role: alt ? "img" : null, "aria-label": alt || null });
  const image = h("img", { alt, width: 112, height: 112, decoding: "async" });
  if (address.startsWith("blob:")) image.src = address;
  else whenSeen(image, () => load(image, address));
  return h("span", { class: "thumb" }, image);
}

async function load(image, address) {
  try {
    image.src = await object(address);
  } catch {
    image.parentElement?.classList.add("blank"); // a missing picture costs only the picture
  }
}

function object(address) {
  const found = kept.get(address) ?? queued(address);
  kept.delete(address);
  kept.set(address, found); // the last used stay longest
  found.catch(() => kept.delete(address));
  forgetOldest();
  return found;
}

async function forgetOldest() {
  if (kept.size <= KEPT) return;
  const [address, old] = kept.entries().next().value;
  kept.delete(address);
  URL.revokeObjectURL(await old.catch(() => ""));
}

function queued(address) {
  return new Promise((resolve, reject) => {
    waiting.push({ address, resolve, reject });
    next();
  });
}

function next() {
  if (held || underway.size >= AT_ONCE || waiting.length === 0) return;
  const { address, resolve, reject } = waiting.shift();
  const fetched = bytes(address).then((blob) => resolve(URL.createObjectURL(blob)), reject);
  const work = Promise.all([fetched, pause(PACE)]).then(() => {
    underway.delete(work);
    next();
  });
  underway.add(work);
}

/** Remove something from the catalog without asking, meanwhile, for pictures that go with it. */
export async function removing(work) {
  held = true;
  try {
    await Promise.all(underway);
    const done = await work();
    for (const { reject } of waiting.splice(0)) reject(new Error("The page is drawn anew.")); // what stays asks again
    return done;
  } finally {
    held = false;
    for (let free = AT_ONCE; free > 0; free -= 1) next();
  }
}
