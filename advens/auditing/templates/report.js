"use strict";
// The gallery: its filter, its pages, its large view. And a button that copies.
const PAGE = 48;
const gallery = document.querySelector("#images .tiles");
if (gallery) {
  const tiles = [...gallery.children];
  const form = document.querySelector(".filter");
  const more = document.querySelector(".more");
  const dialog = document.querySelector("dialog");
  const fields = ["fate", "label", "attack"];
  let matching = tiles;
  let limit = PAGE;
  let current = 0;

  function show() {
    const shown = new Set(matching.slice(0, limit));
    for (const tile of tiles) tile.hidden = !shown.has(tile);
    more.hidden = matching.length <= limit;
    form.querySelector("output").textContent = `${shown.size} of ${matching.length} shown`;
  }

  function filter() {
    matching = tiles.filter((tile) =>
      fields.every((name) => !form.elements[name].value || form.elements[name].value === tile.dataset[name]));
    limit = PAGE;
    show();
  }

  function enlarge(index) {
    current = (index + matching.length) % matching.length;
    const tile = matching[current];
    const { fate, label, attack } = tile.dataset;
    const { clean, predicted, size, smallest, index: number } = tile.querySelector("button").dataset;
    const small = tile.querySelectorAll("img");
    dialog.querySelectorAll("img").forEach((image, i) => {
      image.src = small[i].src;
      image.alt = small[i].alt;
    });
    const captions = [`predicted ${clean}`, size, `predicted ${predicted}`];
    dialog.querySelectorAll("figcaption b").forEach((text, i) => { text.textContent = captions[i]; });
    const fates = {
      fell: `Broken by ${attack}.`,
      resisted: "Withstood every attack.",
      wrong: "Misclassified without attack.",
    };
    dialog.querySelector(".facts").textContent =
      `Image ${number}, of class ${label}. ${fates[fate]}` +
      (smallest ? ` Smallest eps found that breaks it: ${smallest}.` : "") + ` (${current + 1} of ${matching.length})`;
    if (!dialog.open) dialog.showModal();
  }

  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { limit += PAGE; show(); });
  gallery.addEventListener("click", (event) => {
    const tile = event.target.closest("li");
    if (tile) enlarge(matching.indexOf(tile));
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.hasAttribute("data-close")) dialog.close();
    else if (event.target.dataset.move) enlarge(current + Number(event.target.dataset.move));
  });
  dialog.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) { event.preventDefault(); enlarge(current + move); }
  });
  // A browser may have kept the choices of an earlier visit.
  filter();
}

document.querySelector(".copy").addEventListener("click", async (event) => {
  const source = document.querySelector("#bibtex");
  try {
    await navigator.clipboard.writeText(source.textContent);
    event.target.textContent = "Copied";
  } catch {
    // No clipboard for pages from a disk in some browsers: select it instead.
    getSelection().selectAllChildren(source);
    event.target.textContent = "Selected: press Ctrl+C";
  }
});
