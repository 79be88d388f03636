/* What the explorer of a stored comparison and the live page both draw: each method's answer with
   where it came from, and the passages.

   `RAGBOOK.view` has the functions. They draw this of a question:

   passages  [{id, title, text, mark, used, link, struck, edited, cut}]
   entry     of a method: {text, log_prob, right, error, f1, seconds, truncated, typed,
             weights: [[place of the passage, weight, prior, fall without it in nats]],
             tokens: [{token, probability, weights: {place: weight},
                       model, memory, neighbours: [{at, before, token, weight, said}]}],
             spans: [{at, start, end, text, probability}]}

   Of a passage and an entry only the text (and title, weights) must be there. Texts are put in as
   texts, never as markup. */

"use strict";
(() => {
  const MARKS = {
    gold: "answers the question",
    second: "holds the second fact",
    rival: "easily taken for the right one",
  };

  const MARKED = 0.001; // the least probability of a span that is marked in its passage

  /** An element with attributes (`on...` are listeners) and children. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== undefined && child !== ""));
    return element;
  }

  const known = (value) => value !== undefined && value !== null;
  const percent = (value) =>
    value > 0 && value < 0.0005 ? "<0.1 %" : `${(100 * value).toFixed(1)} %`;
  const signed = (value) =>
    `${Math.abs(value) < 0.005 ? "±" : value > 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`;
  const chance = (logProb) => (known(logProb) ? Math.exp(logProb).toPrecision(2) : "0");

  // --- a method's answer ----------------------------------------------------------------------

  /** A method's card. `measure` says what its weights are; `errors` are the kinds of wrong answers,
      [[kind, label, meaning]]; `typed` is the answer whose probability `entry.typed` is. */
  function card(name, entry, passages, { measure, errors = [], typed } = {}) {
    const [, label, meaning] = errors.find(([kind]) => kind === entry.error) ?? ["", "wrong"];
    const verdict = !known(entry.right) ? "" : entry.right
      ? make("span", { class: "explorer-right" }, "✓ right")
      : make("span", { class: "explorer-wrong", title: meaning }, `✗ ${label}`);
    const judged = !known(entry.right) ? "" : entry.right ? "right" : "wrong";
    return make("article",
      { class: `explorer-method ${judged}`, "data-method": name },
      make("h3", {}, name, verdict),
      make("p", { class: "explorer-answer" }, entry.text || "(nothing)"),
      make("p", { class: "explorer-sure" }, sure(entry)),
      typed && entry.typed !== undefined
        ? make("p", { class: "explorer-typed" }, `“${typed}”: probability ${chance(entry.typed)}`)
        : "",
      entry.weights.length
        ? make("div", {},
          make("p", { class: "explorer-measure" }, `weights: ${measure}`),
          make("ul", { class: "explorer-weights", "aria-label": "Passages relied on" },
            ...entry.weights.map((one) => weight(one, passages))))
        : make("p", { class: "explorer-sure" }, "relies on no passage"),
      entry.spans?.length ? spans(entry.spans) : "",
      entry.tokens?.length ? tokens(entry, passages) : "");
  }

  function sure(entry) {
    return (entry.log_prob === null ? "probability 0" : `probability ${chance(entry.log_prob)}`) +
      (known(entry.f1) ? `, F1 ${entry.f1.toFixed(2)}` : "") +
      (known(entry.seconds) ? `, ${entry.seconds.toFixed(2)} s` : "") +
      (entry.truncated ? ", cut short" : "");
  }

  function weight([at, value, prior, fall], passages) {
    const share = percent(value);
    const bar = make("span", { class: "explorer-bar", "aria-hidden": "true" }, make("span"));
    bar.firstChild.style.width = `${100 * value}%`;
    const notes = [
      known(prior) ? `prior ${percent(prior)}` : "",
      fall === undefined ? "" : fall === null ? "impossible without it"
        : `without it ${signed(-fall)} nats`,
    ].filter(Boolean).join(" · ");
    return make("li", {}, make("a", { href: `#explorer-passage-${at}`, onclick: look(at) },
      make("span", {}, `${at + 1}. ${passages[at].title}`), make("span", {}, share), bar,
      notes ? make("small", {}, notes) : ""));
  }

  /** Go to a passage, and leave the address, which keeps the question. */
  const look = (at) => (event) => {
    event.preventDefault();
    const target = document.getElementById(`explorer-passage-${at}`);
    target.scrollIntoView({ block: "center" });
    target.focus({ preventScroll: true });
  };

  function more(name, summary, ...inside) {
    return make("details", { class: "explorer-more", "data-more": name },
      make("summary", {}, summary), ...inside);
  }

  function spans(found) {
    return more("spans", "Its likeliest spans", make("ol", { class: "explorer-spans" },
      ...found.map((one) => make("li", {}, make("a",
        { href: `#explorer-passage-${one.at}`, onclick: look(one.at) },
        `${one.text} `, make("small", {}, `${percent(one.probability)}, passage ${one.at + 1}`))))));
  }

  /** A table that scrolls by itself where it is too wide, and can be scrolled with keys. */
  function table(label, head, rows) {
    return make("div", { class: "explorer-table", role: "region", "aria-label": label,
      tabindex: "0" },
    make("table", {},
      make("thead", {}, make("tr", {}, ...head.map((one) => make("th", { scope: "col" }, one)))),
      make("tbody", {}, ...rows.map(([first, ...rest]) => make("tr", {},
        make("th", { scope: "row" }, first), ...rest.map((cell) => make("td", {}, cell)))))));
  }

  /** What is known of each token: the passages it came from, the neighbours that said it, or only
      its probability. */
  function tokens({ tokens: found, weights }, passages) {
    if (found[0].weights) {
      const used = weights.map(([at]) => at);
      const label = "Where each token came from, in %";
      return more("tokens", label, table(label,
        ["token", ...used.map((at) => make("abbr", { title: passages[at].title }, `${at + 1}`))],
        found.map((one, at) => [at === found.length - 1 ? "(end)" : one.token,
          ...used.map((place) => (100 * (one.weights[place] ?? 0)).toFixed(1))])));
    }
    if (found[0].neighbours) {
      const label = "Model, neighbours and their mixture";
      const rows = found.map((one) =>
        [one.token, percent(one.model), percent(one.memory), percent(one.probability)]);
      return more("tokens", label, table(label, ["token", "p_LM", "p_kNN", "p"], rows),
        ...found.map((one) => make("div", { class: "explorer-neighbours" },
          make("p", {}, "Nearest contexts for ", make("b", {}, one.token)),
          make("ul", {}, ...one.neighbours.map((near) => make("li", {},
            `${near.before} `, make(near.said ? "mark" : "b", {}, near.token), " ",
            make("small", {}, `${percent(near.weight)}, passage ${near.at + 1}`)))))));
    }
    const label = "Probability of each token";
    return more("tokens", label, table(label, ["token", "probability"],
      found.map((one) => [one.token, percent(one.probability)])));
  }

  // --- a passage --------------------------------------------------------------------------------

  /** A passage. `answers` are marked in its text, and so are `spans`, with their probabilities;
      `controls` come after its title, and `body` in place of its text; `base` is the address that
      its link starts from. */
  function passage(one, at, { answers = [], spans: found = [], controls = [], body, base } = {}) {
    const notes = [
      one.mark ? `${MARKS[one.mark]}${one.used ? "" : ", but was not retrieved"}` : "",
      one.struck ? "struck out" : "",
      one.edited ? "edited" : "",
      one.cut ? `the last ${one.cut} words are not read` : "",
    ].filter(Boolean).map((note) => ` · ${note}`).join("");
    const inTitle = one.title ? one.title.length + 2 : 0; // models read "title. text"
    const marks = found.filter((span) => span.start >= inTitle && span.probability >= MARKED)
      .map((span) => ({ ...span, start: span.start - inTitle, end: span.end - inTitle }));
    return make("div",
      {
        class: `explorer-passage ${one.mark ?? ""}${one.struck ? " struck" : ""}`,
        id: `explorer-passage-${at}`, tabindex: "-1", role: "group",
        "aria-label": `Passage ${at + 1}, ${one.title}${one.struck ? ", struck out" : ""}`,
      },
      make("h4", {}, `${at + 1}. ${one.title} `, make("small", {}, where(one, base), notes)),
      ...controls,
      body ?? make("p", {}, ...(marks.length ? spanned(one.text, marks) : marked(one.text, answers))));
  }

  /** The passage's id, as a link to its place in its document where there is such a page. */
  function where({ id, link }, base) {
    return /^documents\/[\w.-]+\.html#[\w=]+$/.test(link ?? "")
      ? make("a", { href: new URL(link, base).href, title: "open the document here" }, id)
      : id;
  }

  /** The text with the right answers marked. */
  function marked(text, answers) {
    if (!answers.length) return [text];
    const literal = answers.map((one) => one.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const found = new RegExp(`(?<!\\p{L}|\\p{N})(${literal.join("|")})(?!\\p{L}|\\p{N})`, "giu");
    return text.split(found).map((piece, at) => (at % 2 ? make("mark", {}, piece) : piece));
  }

  /** The text with spans marked, each with its probability; of those that overlap, the likeliest.
      Places count characters as Python does, by code points. */
  function spanned(text, found) {
    const characters = [...text];
    const kept = [];
    for (const one of [...found].sort((a, b) => b.probability - a.probability)) {
      if (kept.every((other) => one.end <= other.start || one.start >= other.end)) kept.push(one);
    }
    const pieces = [];
    let at = 0;
    for (const { start, end, probability } of kept.sort((a, b) => a.start - b.start)) {
      const share = make("small", {}, ` ${percent(probability)}`);
      pieces.push(characters.slice(at, start).join(""),
        make("mark", {}, characters.slice(start, end).join(""), share));
      at = end;
    }
    return [...pieces, characters.slice(at).join("")];
  }

  (self.RAGBOOK ??= { answers: [] }).view = { make, card, passage, percent };
})();
