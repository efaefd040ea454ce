// Verdicts on answers and labels: right, wrong, no landmark, or another one that is looked up as it is typed.

import { fieldsOf, lineOf } from "./server.js";

const PAUSE_MS = 200; // of typing, after which names are looked up
const N_NAMES = 20;

let n = 0;

/** Makes the buttons of a verdict work. source: the picture, as of `fieldsOf`; null = not known here. */
export function equipFeedback(group, source) {
  const told = group.querySelector(".noted");
  let before = "";
  group.addEventListener("submit", async event => {
    event.preventDefault();
    const button = event.submitter;
    const fields = new FormData(event.target);
    fields.set("verdict", button.value);
    const keep = group.querySelector("input[name=keep]");
    if (keep?.checked && source?.file && !source.box) {
      fields.append("keep", "true");
      for (const [name, value] of fieldsOf(source)) fields.append(name, value);
    }
    for (const other of group.querySelectorAll("button")) other.removeAttribute("aria-pressed");
    told.textContent = "…";
    told.classList.remove("failed");
    try {
      const said = [button.value, fields.get("landmark_id")].filter(Boolean).join(" ");
      const both = before && before !== said ? ` What was said before (${before}) stands too: the two count against each other.` : "";
      told.textContent = await send(fields) + both;
      before = said;
      button.setAttribute("aria-pressed", "true");
    } catch (error) {
      told.textContent = error.message;
      told.classList.add("failed");
    }
  });
  equipNames(group.querySelector("input[name=landmark_id]"));
}

/** The line that says what was recorded. Throws an Error with the one line of the server. */
async function send(fields) {
  const response = await fetch("/v1/feedback", { method: "POST", body: fields }).catch(() => {
    throw new Error("the server does not answer; is it running?");
  });
  const text = await response.text();
  if (!response.ok) throw new Error(lineOf(response, text));
  const { state, landmark_id, kept, note } = JSON.parse(text);
  const what = landmark_id ? `: ${landmark_id}` : "";
  return [`${state === "recorded" ? "Noted" : "Noted before"}${what}`, kept && "the picture is kept", note]
    .filter(Boolean).join("; ") + ".";
}

function equipNames(input) {
  const list = document.createElement("datalist");
  list.id = `names-${++n}`;
  input.setAttribute("list", list.id);
  input.after(list);
  let timer = 0;
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => fillNames(list, input.value), PAUSE_MS);
  });
}

async function fillNames(list, text) {
  const response = await fetch(`/v1/landmarks?${new URLSearchParams({ search: text, n: N_NAMES })}`).catch(() => null);
  if (!response?.ok) return; // the names are a help; any name may be typed
  const { items } = await response.json();
  list.replaceChildren(...items.map(({ landmark_id, name }) => {
    const option = document.createElement("option");
    option.value = landmark_id;
    option.label = name || landmark_id;
    return option;
  }));
}
