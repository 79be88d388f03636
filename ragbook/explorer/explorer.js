/* The explorer's page: a list of questions with filters, and the answers to the chosen one, which
   answers.js draws.

   Its state is the part of the address after #, so that what is seen can be linked to:
   q=ID is the question (without it, one that matches is open), find=WORDS, type=KIND, answers=agree|differ, gold=found|missed, and for a
   method METHOD=right|wrong or a kind of error. Texts are put in as texts, never as markup. */

"use strict";
(() => {
  const SHOWN = 100; // questions listed at a time
  const base = new URL(".", document.currentScript.src);
  const root = document.getElementById("explorer");
  const data = (self.RAGBOOK ??= { answers: [] });
  let make, card, passage; // the drawing, from answers.js

  function load(name) {
    return new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = new URL(name, base).href;
      script.onload = done;
      script.onerror = () => failed(new Error(`${name} is not beside this page`));
      document.head.append(script);
    });
  }

  const state = () => new URLSearchParams(location.hash.slice(1));
  function address(changes) {
    const wanted = state();
    for (const [name, value] of Object.entries(changes)) {
      if (value) wanted.set(name, value);
      else wanted.delete(name);
    }
    return `#${wanted}`;
  }

  // --- the list -------------------------------------------------------------------------------

  let questions = [];
  let matching = [];
  let opened; // the question that is shown when the address names none
  let shown = SHOWN;
  const fields = {}; // the filters' controls by their name in the address
  let count, list, panel;

  function select(name, label, choices) {
    const options = Object.entries(choices).map(([value, text]) => make("option", { value }, text));
    fields[name] = make("select", { id: `explorer-${name}`, onchange: filter }, ...options);
    return make("label", {}, label, fields[name]);
  }

  function controls() {
    const kinds = [...new Set(questions.map((one) => one.kind))].sort();
    fields.find = make("input", {
      type: "search",
      id: "explorer-find",
      placeholder: "words of the question or its answer",
      oninput: filter,
      onkeydown: (event) => {
        if (event.key === "ArrowDown" && matching.length) {
          event.preventDefault();
          list.querySelector("a").focus();
        }
      },
    });
    const kind = select("type", "Type", {
      "": "all types",
      ...Object.fromEntries(kinds.map((name) => [name, name])),
    });
    const methods = make("div");
    for (const [at, name] of data.questions.methods.entries()) {
      // "exact" is "right"; of the others, those that the method has, and how often.
      const wrong = data.questions.errors.map(([kind, label], number) => {
        const often = questions.filter((one) => one.kinds[at] === String(number)).length;
        return [kind, `wrong: ${label} (${often})`, often];
      }).filter(([kind, , often]) => kind !== "exact" && often);
      methods.append(select(name, name, {
        "": "any", right: "right", wrong: "wrong",
        ...Object.fromEntries(wrong),
      }));
    }
    return make(
      "form",
      { class: "explorer-filters", role: "search", onsubmit: (event) => event.preventDefault() },
      make("label", { class: "explorer-find" }, "Search", fields.find),
      kinds.length > 1 ? kind : "",
      select("answers", "Methods that read", {
        "": "agree or not", differ: "give different answers", agree: "all give one answer",
        split: "some right, some wrong", none: "none right",
      }),
      select("gold", "Passage that answers", {
        "": "found or not", found: "was found", missed: "was not found",
      }),
      make("details", { id: "explorer-who" },
        make("summary", {}, "Who is right, and who is wrong in which way"), methods),
      make("button", { type: "button", onclick: clear }, "Clear filters"),
    );
  }

  function clear() {
    for (const field of Object.values(fields)) field.value = "";
    filter();
    fields.find.focus();
  }

  /** The controls changed: say so in the address, without a step in the browser's history. */
  function filter() {
    const changes = Object.fromEntries(
      Object.entries(fields).map(([name, field]) => [name, field.value]),
    );
    history.replaceState(null, "", address(changes));
    shown = SHOWN;
    match();
    show();
  }

  const chosen = () => state().get("q") ?? opened;

  function match() {
    const { methods, reading } = data.questions;
    const words = fields.find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const value = (name) => fields[name].value;
    const kinds = data.questions.errors.map(([kind]) => kind);
    const is = (one, at, wanted) => {
      const kind = kinds.indexOf(wanted);
      if (kind >= 0) return one.kinds[at] === String(kind);
      return one.right[at] === (wanted === "right" ? "1" : "0");
    };
    matching = questions.filter((one) => {
      const right = reading.filter((at) => one.right[at] === "1").length;
      const wanted = {
        "": true,
        agree: one.agree,
        differ: !one.agree,
        split: right > 0 && right < reading.length,
        none: right === 0 && !one.right.includes("-"),
      };
      return (
        words.every((word) => one.searched.includes(word)) &&
        (!value("type") || one.kind === value("type")) &&
        wanted[value("answers")] &&
        (!value("gold") || one.found === Number(value("gold") === "found")) &&
        methods.every((name, at) => !value(name) || is(one, at, value(name)))
      );
    });
  }

  function show() {
    const { methods } = data.questions;
    const rows = matching.slice(0, shown).map((one) => {
      const marks = [...one.right].map((bit) =>
        bit === "-" ? make("span", {}, "·")
          : make("span", { class: bit === "1" ? "explorer-right" : "explorer-wrong" },
            bit === "1" ? "✓" : "✗"),
      );
      const right = one.right.includes("-") ? "not known"
        : methods.filter((_, at) => one.right[at] === "1").join(", ") || "none";
      return make("li", {}, make(
        "a",
        {
          href: address({ q: one.id }), "data-id": one.id, tabindex: "-1",
          "aria-current": one.id === chosen() && "true",
        },
        make("span", {}, one.text),
        make("span", { class: "explorer-marks", role: "img", "aria-label": `right: ${right}`,
          title: `right: ${right}` }, ...marks),
      ));
    });
    const links = rows.map((row) => row.firstChild);
    const tabbed = links.find((link) => link.dataset.id === chosen()) ?? links[0];
    if (tabbed) tabbed.tabIndex = 0; // one stop for the tab key, arrows for the rest
    list.replaceChildren(...rows);
    if (matching.length > shown) {
      const more = () => {
        const at = shown;
        shown += SHOWN;
        show();
        list.querySelectorAll("a")[at].focus();
      };
      list.append(make("li", {}, make("button", { type: "button", onclick: more },
        `show ${Math.min(SHOWN, matching.length - shown)} more`)));
    }
    count.textContent = `${matching.length} of ${questions.length} questions`;
  }

  /** Arrow keys in the list. */
  function step(event) {
    const moves = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    const links = [...list.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    if (!(event.key in moves) || at < 0) return;
    event.preventDefault();
    if (event.key === "ArrowUp" && at === 0) return fields.find.focus();
    links[Math.max(0, Math.min(links.length - 1, at + moves[event.key]))].focus();
  }

  // --- the chosen question --------------------------------------------------------------------

  async function open() {
    const id = chosen();
    const at = questions.findIndex((one) => one.id === id);
    if (at < 0) {
      panel.replaceChildren(make("p", {}, id
        ? "The address names a question that is not here; choose one from the list."
        : "No question matches the filters."));
      return;
    }
    const { part } = data.questions;
    const number = Math.floor(at / part);
    if (!data.answers[number]) {
      try {
        await load(`answers-${number}.js`);
      } catch (error) {
        panel.replaceChildren(make("p", { role: "alert" }, `${error.message}.`));
        return;
      }
      if (chosen() !== id) return; // another was chosen meanwhile
    }
    draw(questions[at], data.answers[number][at % part]);
  }

  function draw(question, detail) {
    const place = matching.indexOf(question);
    const beside = (offset, text) => {
      const other = place < 0 ? undefined : matching[place + offset];
      const go = () => { location.hash = address({ q: other.id }); };
      return make("button", { type: "button", disabled: !other && "", onclick: go }, text);
    };
    const answers = question.answers ? question.answers.split(" | ") : [];
    panel.replaceChildren(
      make("h2", { class: "explorer-question", id: "explorer-question", tabindex: "-1" },
        question.text),
      make("p", {}, ...(answers.length
        ? ["Right: ", make("strong", {}, answers[0]),
          answers.length > 1 ? ` (also ${answers.slice(1).join(", ")})` : ""]
        : ["No answer is known"]),
        ` · ${question.kind} question`),
      make("div", { class: "explorer-steps" }, beside(-1, "← previous"), beside(1, "next →")),
      make("div", { class: "explorer-methods" },
        ...data.questions.methods.map((name, at) => card(name, detail.methods[name],
          detail.passages, { measure: data.questions.measures[at], errors: data.questions.errors }))),
      make("h3", {}, "The passages"),
      ...detail.passages.map((one, at) => passage(one, at, { answers, base })),
    );
  }

  // --- starting -------------------------------------------------------------------------------

  /** The address changed: by a link, by the browser's history or by hand. */
  function follow() {
    const wanted = state();
    for (const [name, field] of Object.entries(fields)) field.value = wanted.get(name) ?? "";
    if (data.questions.methods.some((name) => wanted.get(name))) {
      document.getElementById("explorer-who").open = true;
    }
    match();
    const first = matching.find((one) => one.id === data.questions.first) ?? matching[0];
    opened = first?.id;
    show();
    return open();
  }

  async function start() {
    try {
      await load("answers.js");
      ({ make, card, passage } = data.view);
      await load("questions.js");
    } catch (error) {
      const alert = document.createElement("p");
      alert.setAttribute("role", "alert");
      alert.textContent = `${error.message}.`;
      root.replaceChildren(alert);
      return;
    }
    count = make("p", { class: "explorer-count", role: "status" });
    list = make("ul", { class: "explorer-list", onkeydown: step, "aria-label": "Questions" });
    // The names of the columns of marks; a row says who is right by its own label.
    const heads = make("div", { class: "explorer-heads", "aria-hidden": "true" },
      make("span", { class: "explorer-marks" },
        ...data.questions.methods.map((name) => make("span", { title: name }, name))));
    panel = make("section", { "aria-live": "off" });
    const { fields: names, rows } = data.questions;
    questions = rows.map((row) => Object.fromEntries(names.map((name, at) => [name, row[at]])));
    for (const one of questions) one.searched = `${one.text} ${one.answers}`.toLowerCase();
    root.replaceChildren(controls(), count, heads, list, panel);
    addEventListener("hashchange", async () => {
      await follow();
      const heading = document.getElementById("explorer-question");
      heading?.focus({ preventScroll: true });
      heading?.scrollIntoView();
    });
    await follow();
    root.dataset.ready = "true";
  }

  start();
})();
