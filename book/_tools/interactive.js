/* The interactive figures: each replaces the picture of the cell before it by controls, a table and a sentence.

   A figure is two functions in FIGURES: `controls` says what can be moved, `compute` gives the
   table for their positions. The formulas are those of ragbook.methods, written once more here. */

"use strict";
(() => {
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const product = (values) => values.reduce((total, value) => total * value, 1);
  const softmax = (logits) => {
    const most = Math.max(...logits);
    const weights = logits.map((logit) => Math.exp(logit - most));
    const total = sum(weights);
    return weights.map((weight) => weight / total);
  };
  const largest = (values) => values.indexOf(Math.max(...values));

  const shortened = (value) => value.toExponential(1).replace("e+", "e");

  /** A number as the picture has it: three decimals, or a power of ten. */
  function shown(value) {
    if (value !== 0 && Math.abs(value) < 0.0005) return shortened(value);
    return value.toFixed(3).replace("-0.000", "0.000");
  }
  const signed = (value) => `${value > 0 ? "+" : ""}${value}`.replace("-", "−");

  /** The prior with `added` to one passage's score, all scores times `sharpness` first. */
  const prior = (data, added, sharpness = 1) =>
    softmax(data.log_prior.map((s, z) => sharpness * s + (z === data.moved ? added : 0)));

  const score = (data) => ({
    name: "added", label: `Added to the score of ${data.passages[data.moved]}`,
    min: -6, max: 6, step: 0.5, value: 0, says: (x) => `${signed(x)} nats`,
  });

  const FIGURES = {
    "next-token": {
      controls: (data) => [
        { name: "lam", label: "Weight of the memory, λ", min: 0, max: 1, step: 0.01,
          value: data.lambda, says: (x) => x.toFixed(2) },
        // The slider's positions are tenths of the temperature's power of ten.
        { name: "power", label: "Temperature, T", min: -10, max: 40, step: "any",
          value: 10 * Math.log10(data.temperature), says: (x) => temperature(x).toPrecision(3) },
      ],
      compute(data, { lam, power }) {
        const weights = softmax(data.distances.map((d) => -d / temperature(power)));
        const memory = data.tokens.map((_, token) =>
          sum(weights.filter((_, i) => data.values[i] === token)));
        const mixture = memory.map((p, i) => (1 - lam) * data.model[i] + lam * p);
        const first = (p) => {
          const at = largest(p.slice(0, -1));
          return `“${data.tokens[at]}” with ${shown(p[at])}`;
        };
        return {
          head: "next token", rows: data.tokens,
          columns: { model: data.model, memory, mixture },
          says: `Of the tokens shown, the model alone prefers ${first(data.model)}, the memory ` +
            `${first(memory)}, and the mixture ${first(mixture)}.`,
        };
      },
    },

    posterior: {
      controls: (data) => [
        score(data),
        { name: "known", label: "What the reader knows", min: 0, max: 1, step: 0.05, value: 1,
          says: (x) => (x === 0 ? "nothing: the same for all" : x.toFixed(2)) },
      ],
      compute(data, { added, known }) {
        const p = prior(data, added);
        const mean = sum(data.given) / data.given.length;
        const given = data.given.map((g) => known * g + (1 - known) * mean);
        const total = sum(given.map((g, z) => g * p[z]));
        const after = given.map((g, z) => (total > 0 ? (g * p[z]) / total : p[z]));
        const gradient = after.map((a, z) => a - p[z]);
        const up = largest(gradient);
        return {
          head: "passage", rows: data.passages,
          columns: { "prior p(z|x)": p, "reader p(y|z,x)": given, "posterior p(z|x,y)": after,
            gradient },
          says: `p(y|x) = ${shown(total)}. ` + (gradient[up] < 0.0005
            ? "No score is moved: posterior and prior are the same."
            : `The score of ${data.passages[up]} is raised most, by ${shown(gradient[up])} ` +
              "times the learning rate."),
        };
      },
    },

    "where-the-sum-is": {
      controls: (data) => [
        score(data),
        { name: "sharpness", label: "Sharpness of the prior", min: 0, max: 2, step: 0.1, value: 1,
          says: (x) => (x === 0 ? "0: all alike" : x.toFixed(1)) },
      ],
      compute(data, { added, sharpness }) {
        const p = prior(data, added, sharpness);
        const each = data.log_probs.map((row) => row.map(Math.exp));
        const whole = each.map(product);
        const sums = data.tokens.map((_, t) => sum(p.map((weight, z) => weight * each[z][t])));
        const token = product(sums);
        const sequence = sum(p.map((weight, z) => weight * whole[z]));
        const columns = {};
        data.passages.forEach((name, z) => { columns[name] = [p[z], ...each[z], whole[z]]; });
        columns["RAG-Token: sums"] = [null, ...sums, token];
        columns["RAG-Sequence: sum"] = [null, ...sums.map(() => null), sequence];
        const [more, less, ratio] = sequence > token
          ? ["RAG-Sequence", "RAG-Token", sequence / token]
          : ["RAG-Token", "RAG-Sequence", token / sequence];
        return {
          head: "token", columns, sums: 1,
          rows: ["prior p(z|x)", ...data.tokens.map((piece, t) => `${t + 1}: ${piece}`),
            "whole answer"],
          says: `RAG-Token ${shown(token)}, RAG-Sequence ${shown(sequence)}: ` +
            (ratio < 1.005 ? "the same." : `${more} gives the answer ${ratio < 100
              ? ratio.toPrecision(3) : shortened(ratio)} times the probability of ${less}.`),
        };
      },
    },

    "struck-out": {
      controls: (data) => [
        { name: "kept", label: "Passages that FiD reads", choices: data.passages },
      ],
      compute(data, { kept }) {
        const key = kept.map(Number).join("");
        const found = data.choices[key];
        const other = kept.map((is, z) => {
          const changed = kept.map((one, at) => Number(at === z ? !one : one)).join("");
          return data.choices[changed]?.p ?? null;
        });
        return {
          head: "passage", rows: data.passages, struck: kept.map((is) => !is),
          columns: {
            attention: kept.map((is, z) => (is ? found.attention[z] : null)),
            "p(answer) without it": kept.map((is, z) => (is ? other[z] : null)),
            "p(answer) with it": kept.map((is, z) => (is ? null : other[z])),
          },
          says: found
            ? `FiD reads ${kept.filter(Boolean).length} of ${kept.length} passages and writes ` +
              `“${found.text}”; the right answer, “${data.answer}”, has probability ` +
              `${shown(found.p)}.`
            : "FiD has nothing to read: put a passage back.",
        };
      },
    },
  };

  function temperature(power) {
    return 10 ** (power / 10);
  }

  // --- what all have in common ----------------------------------------------------------------

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function slider(control, id, moved) {
    const input = make("input", { type: "range", id, min: control.min, max: control.max,
      step: control.step, value: control.value });
    const output = make("output", { for: id, "aria-live": "off" });
    const tell = () => {
      output.textContent = control.says(input.valueAsNumber);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => { tell(); moved(); });
    tell();
    return {
      element: make("div", { class: "rb-control" }, make("label", { for: id }, control.label),
        input, output),
      read: () => input.valueAsNumber,
      reset: () => { input.value = control.value; tell(); },
    };
  }

  function boxes(control, id, moved) {
    const inputs = control.choices.map((_, at) =>
      make("input", { type: "checkbox", id: `${id}-${at}`, checked: "" }));
    inputs.forEach((input) => input.addEventListener("change", moved));
    return {
      element: make("fieldset", { class: "rb-control" }, make("legend", {}, control.label),
        ...inputs.map((input, at) => make("label", {}, input, ` ${control.choices[at]}`))),
      read: () => inputs.map((input) => input.checked),
      reset: () => inputs.forEach((input) => { input.checked = true; }),
    };
  }

  function cell(value) {
    if (value === null) return make("td", { class: "rb-none" }, "–");
    const bar = make("span", { class: value < 0 ? "rb-bar rb-minus" : "rb-bar",
      "aria-hidden": "true" });
    bar.style.setProperty("--share", Math.min(1, Math.abs(value)));
    return make("td", {}, make("span", { class: "rb-value" }, shown(value).replace(/^-/, "−")),
      bar);
  }

  function table({ head, rows, columns, sums = 0, struck = [] }) {
    const names = Object.keys(columns);
    const first = make("tr", {}, make("th", { scope: "col" }, head),
      ...names.map((name) => make("th", { scope: "col" }, name)));
    const lines = rows.map((row, at) => {
      const kinds = [at >= rows.length - sums ? "rb-sum" : "", struck[at] ? "rb-struck" : ""];
      return make("tr", { class: kinds.join(" ").trim() }, make("th", { scope: "row" }, row),
        ...names.map((name) => cell(columns[name][at])));
    });
    return [make("thead", {}, first), make("tbody", {}, ...lines)];
  }

  function replace(island, number) {
    const { kind, ...data } = JSON.parse(island.textContent);
    let cell = island.previousElementSibling; // between them may be a line on where it comes from
    while (cell && !cell.matches(".cell")) cell = cell.previousElementSibling;
    const picture = cell?.querySelector(".cell_output img");
    const { controls, compute } = FIGURES[kind];
    const says = make("p", { class: "rb-says", "aria-live": "polite" });
    const body = make("table", { class: "rb-table" });
    const draw = () => {
      const state = Object.fromEntries(parts.map((part) => [part.name, part.read()]));
      const found = compute(data, state);
      body.replaceChildren(...table(found));
      says.textContent = found.says;
    };
    const parts = controls(data).map((control, at) => ({
      name: control.name,
      ...(control.choices ? boxes : slider)(control, `rb-${number}-${at}`, draw),
    }));
    const back = make("button", { type: "button" }, "Start again");
    back.addEventListener("click", () => { parts.forEach((part) => part.reset()); draw(); });
    const figure = make("div", { class: "rb-figure", role: "group",
      "aria-label": picture?.alt || "Interactive figure" },
      make("div", { class: "rb-controls" }, ...parts.map((part) => part.element), back),
      make("div", { class: "rb-scroll" }, body),
      says);
    draw();
    if (picture) {
      picture.classList.add("rb-picture");
      picture.after(figure);
    } else island.after(figure);
  }

  document.querySelectorAll("script.rb-interactive").forEach(replace);
})();
