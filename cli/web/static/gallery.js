// A gallery: filtered and sorted at once, longer as one scrolls, its pictures compared with the one that was asked.

import { compare } from "./compare.js";
import { fetchPart, post, problem } from "./server.js";

const BY_ITSELF = 5; // pages that come as one scrolls; further ones by the button, so that the end can be reached

/** Makes a gallery work. source: what its pictures are compared with, as of `fieldsOf`; null = not known here. */
export function equipGallery(form, source = null) {
  let pages = 0;
  let asked = 0; // the last request; an answer to an earlier one comes too late
  const tiles = () => form.querySelector(".tiles");

  const load = async first => {
    if (first && form.hasAttribute("aria-busy")) return; // a first page on its way has other images before these
    const mine = ++asked;
    form.setAttribute("aria-busy", "true");
    form.querySelector(".problem")?.remove();
    try {
      const part = await fetchGallery(form, first);
      if (mine === asked) take(part, first);
    } catch (error) {
      if (mine === asked) form.querySelector(".more").before(problem(error.message));
    } finally {
      if (mine === asked) form.removeAttribute("aria-busy");
    }
  };

  const take = (part, first) => {
    const added = [...part.querySelector(".tiles").children];
    const hadFocus = form.querySelector(".more").contains(document.activeElement);
    if (first) tiles().append(...added);
    else tiles().replaceChildren(...added);
    form.querySelector(".more").replaceWith(part.querySelector(".more"));
    if (first && hadFocus) added[0]?.querySelector("a")?.focus({ preventScroll: true });
    watchEnd();
  };

  const watchEnd = () => {
    const button = form.querySelector(".more button");
    if (button && pages < BY_ITSELF) ends.observe(button);
  };

  const ends = new IntersectionObserver(entries => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting || document.activeElement === target || !hasScrolled) continue;
      ends.unobserve(target);
      pages += 1;
      load(target.value);
    }
  }, { rootMargin: "200px" });

  form.addEventListener("change", () => load(0));
  form.addEventListener("submit", event => {
    event.preventDefault();
    load(Number(event.submitter?.value ?? 0));
  });
  form.addEventListener("click", event => {
    const asked = event.target.closest("a.pic, .compare");
    if (!asked || !source || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const picture = asked.matches(".pic") ? asked : asked.closest("li").querySelector("a.pic");
    compare(source, picture.dataset.image);
  });
  watchEnd();
}

let hasScrolled = false;
addEventListener("scroll", () => { hasScrolled = true; }, { once: true, passive: true });

function fetchGallery(form, first) {
  const fields = new FormData(form);
  fields.set("first", first);
  if (form.method === "post") return post(form.action, fields);
  return fetchPart(`${form.action.split("?")[0]}?${new URLSearchParams(fields)}`);
}
