/* Tables, figures, formulas and code that are wider than the screen can be reached by keyboard and
   are marked: `rb-scrolls` on what scrolls, `rb-more` while something follows on the right.

   Tables of comparisons, and those in a cell or block of the class `stacks`, become a block for each
   row on a phone (`rb-stacks`); for this every cell gets its column's heading.

   A tap on a figure makes it larger there, and another one as wide as the screen again (`rb-large`). */

"use strict";
(() => {
  const KINDS = {
    ".pst-scrollable-table-container, .cell_output .text_html, .rb-scroll": "Table",
    ".cell_output figure": "Figure",
    "div.math": "Formula",
    ".highlight pre": "Code",
  };

  function mark(element, name) {
    const scrolls = element.scrollWidth > element.clientWidth + 1;
    const rest = element.scrollWidth - element.clientWidth - element.scrollLeft;
    element.classList.toggle("rb-more", scrolls && rest > 1);
    if (scrolls === element.classList.contains("rb-scrolls")) return;
    element.classList.toggle("rb-scrolls", scrolls);
    if (scrolls) {
      element.tabIndex = 0;
      if (element.tagName !== "FIGURE") element.setAttribute("role", "group"); // it is one by itself
      element.setAttribute("aria-label", `${name}, scrolls sideways`);
    } else {
      for (const attribute of ["tabindex", "role", "aria-label"]) {
        element.removeAttribute(attribute);
      }
    }
  }

  const STACKED = ".cell_output table:has(caption), :is(.stacks, .tag_stacks) table";

  function label() {
    for (const table of document.querySelectorAll(`article :is(${STACKED})`)) {
      const columns = table.tHead?.rows[table.tHead.rows.length - 1]; // its corner may be no th
      if (!columns) continue;
      const heads = [...columns.cells].map((head) => head.textContent.trim());
      table.classList.add("rb-stacks");
      for (const row of table.tBodies[0].rows) {
        [...row.cells].forEach((cell, at) => { cell.dataset.head = heads[at]; });
      }
    }
  }

  function watch() {
    label();
    for (const [selector, name] of Object.entries(KINDS)) {
      for (const element of document.querySelectorAll(`article :is(${selector})`)) {
        const look = () => mark(element, name);
        element.addEventListener("scroll", look, { passive: true });
        const sizes = new ResizeObserver(look);
        for (const each of [element, ...element.children]) sizes.observe(each);
        addEventListener("load", look);
        look();
      }
    }
  }

  function enlarge(tap) {
    const picture = tap.target.closest("article .cell_output figure img");
    picture?.closest("figure").classList.toggle("rb-large");
  }

  addEventListener("DOMContentLoaded", watch);
  addEventListener("click", enlarge);
})();
