/** One kind of dialog: a title, fields, one button that does it and one that does not. */

import { busy, h, replace } from "./dom.js";

let number = 0;

/**
 * Open a dialog. The browser keeps the focus inside, closes it on Escape and gives the focus back.
 * @param {string} title
 * @param {{body: any[], submit: string, work: () => Promise<void>, closed?: (done: boolean) => void}} what
 *   `work` may throw: the dialog stays open and says why.
 */
export function dialog(title, { body, submit, work, closed }) {
  const id = `dialog-${++number}`;
  const trouble = h("p", { class: "trouble", role: "alert" });
  const send = h("button", { type: "submit", class: "primary" }, submit);
  const cancel = h("button", { type: "button", onclick: () => node.close() }, "Cancel");
  const form = h(
    "form",
    { onsubmit: submitted },
    h("h2", { id }, title),
    body,
    trouble,
    h("p", { class: "buttons" }, send, cancel),
  );
  const node = h("dialog", { "aria-labelledby": id }, form);
  let done = false;

  function submitted(event) {
    event.preventDefault();
    replace(trouble);
    busy(send, async () => {
      try {
        await work();
        done = true;
        node.close();
      } catch (error) {
        replace(trouble, error.message);
      }
    });
  }

  node.addEventListener("close", () => {
    node.remove();
    closed?.(done);
  });
  document.body.append(node);
  node.showModal();
}
