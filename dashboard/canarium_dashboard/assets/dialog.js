// Asking before anything is done. The browser's own dialog keeps focus inside, closes by Escape, and gives focus back.

import { h } from "./dom.js";
import { ask } from "./session.js";

const box = document.getElementById("dialog");

export function confirm(path, offer, said) {
  const note = h("input", { id: "note", maxlength: 60, autocomplete: "off" });
  const cancel = h("button", { type: "button" }, "Cancel");
  const yes = h("button", { type: "submit", class: offer.danger ? "danger" : "urgent" }, offer.title);
  const answer = h("p", { class: "answer", role: "alert" });
  const form = h("form", { method: "dialog" },
    h("h2", { id: "dialog-title" }, offer.question),
    h("p", { id: "dialog-says" }, offer.consequence),
    h("label", { for: "note" }, h("span", {}, "Why, for the history (optional)"), note),
    answer,
    h("div", { class: "buttons" }, cancel, yes));
  box.replaceChildren(form);
  box.setAttribute("aria-describedby", "dialog-says");
  cancel.addEventListener("click", () => box.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (yes.disabled) return;
    yes.disabled = true;
    answer.className = "answer";
    answer.textContent = "Asked; waiting for the operator's answer…";
    try {
      const found = await ask(path, { verb: offer.verb, revision: offer.revision ?? "", step: offer.step ?? null, note: note.value });
      if (found.outcome === "done") {
        box.close();
        said(found.message);
        return;
      }
      answer.textContent = found.message;
    } catch (error) {
      answer.textContent = error.message;
    }
    answer.className = "answer wrong";
    cancel.textContent = "Close";
    yes.disabled = false;
  });
  box.showModal();
  cancel.focus();
}
