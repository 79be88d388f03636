/* The live page: a question is asked, and answers.js draws what comes back, line by line.

   Its state is the part of the address after #, so that what is seen can be linked to: q is the
   question, answer an answer whose probability is wanted, k, retriever, beams, lambda, temperature
   and free=1 are the settings where they are not the server's own, strike=ID is a passage that is
   struck out, text:ID=TEXT one that is edited. token=TEXT is taken out of it and kept. */

"use strict";
(() => {
  const { make, card, passage } = self.RAGBOOK.view;
  const root = document.getElementById("explorer");
  const SETTINGS = { k: "k", retriever: "retriever", beams: "beams", lambda: "lam",
    temperature: "temperature" }; // names in the address and in a request
  const PAUSE = 300; // milliseconds without a change before a question is asked again

  let about; // what the server says of itself
  let asked; // the question that is shown: {ask, passages, entries, failed, command, done, cut}
  let running = new AbortController(); // ends the question that is being answered
  let editing; // id of the passage whose text is being edited
  let timer;
  const struck = new Set();
  const edited = new Map(); // id -> text

  const fields = {}; // controls by their name in the address
  const status = make("p", { class: "explorer-count", role: "status", "aria-live": "polite" });
  const answers = make("section", { "aria-label": "Answers" });

  // --- the server -------------------------------------------------------------------------------

  const TOKEN = "ragbook-token";
  function headers(more) {
    const token = sessionStorage.getItem(TOKEN);
    return token ? { ...more, Authorization: `Bearer ${token}` } : more;
  }

  /** A request's answer; an Error with a sentence for the reader where there is none. */
  async function call(address, options = {}) {
    let response;
    try {
      response = await fetch(address, { ...options, headers: headers(options.headers ?? {}) });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server does not answer; it may have been stopped.");
    }
    if (response.ok) return response;
    const said = await response.json().catch(() => ({}));
    const fault = new Error(said.error ?? "Too many people are asking right now; try again in a moment.");
    fault.token = response.status === 401;
    throw fault;
  }

  /** The events of a question, as they come. */
  async function* events(ask, signal) {
    const response = await call("api/ask", {
      method: "POST", body: JSON.stringify(ask), signal,
      headers: { "Content-Type": "application/json" },
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      let piece;
      try {
        piece = await reader.read();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Error("The server was stopped before it had answered.");
      }
      const lines = (rest + (piece.value ?? "")).split("\n");
      rest = lines.pop();
      for (const line of lines) yield JSON.parse(line);
      if (piece.done) return;
    }
  }

  // --- asking -----------------------------------------------------------------------------------

  /** What the controls say, as a request. */
  function wanted() {
    const ask = { question: fields.q.value.trim(), free: fields.free.checked };
    for (const [name, key] of Object.entries(SETTINGS)) {
      const value = fields[name]?.value;
      if (value) ask[key] = name === "retriever" ? value : Number(value);
    }
    ask.struck = [...struck];
    ask.edited = Object.fromEntries(edited);
    ask.typed = fields.answer.value.trim();
    return ask;
  }

  function address() {
    const state = new URLSearchParams();
    if (fields.q.value.trim()) state.set("q", fields.q.value.trim());
    for (const [name, key] of Object.entries(SETTINGS)) {
      const value = fields[name]?.value;
      if (value && value !== String(about.defaults[key])) state.set(name, value);
    }
    if (fields.free.checked !== about.defaults.free) state.set("free", fields.free.checked ? 1 : 0);
    if (fields.answer.value.trim()) state.set("answer", fields.answer.value.trim());
    for (const id of struck) state.append("strike", id);
    for (const [id, text] of edited) state.set(`text:${id}`, text);
    return `#${state}`;
  }

  /** Ask what the controls say; `step` makes a step in the browser's history. */
  async function ask(step = false) {
    clearTimeout(timer);
    if (!fields.q.value.trim()) {
      status.textContent = "Write a question first.";
      fields.q.focus();
      return;
    }
    for (const field of Object.values(fields)) {
      if (!field.checkValidity()) {
        const named = field.labels[0].firstChild.textContent;
        status.textContent = `${named}: ${field.validationMessage}`;
        return;
      }
    }
    if (address() !== location.hash) {
      history[step ? "pushState" : "replaceState"](null, "", address());
    }
    running.abort();
    running = new AbortController();
    const { signal } = running;
    const own = { ask: wanted(), passages: [], entries: {}, failed: {}, cut: {} };
    const again = own.ask.question === asked?.ask.question;
    if (!again) editing = undefined;
    document.title = `${own.ask.question} – all methods`;
    status.textContent = "Asking …";
    answers.setAttribute("aria-busy", "true");
    try {
      for await (const event of events(own.ask, signal)) {
        take(own, event);
        // What is shown stays until there is something new in its place.
        if (event.event === "place" || event.event === "begin") continue;
        asked = own;
        if (event.event === "detail") redraw(event.method);
        else draw();
      }
      if (!own.done && !own.told) throw new Error("The server was stopped before it had answered.");
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.token) return askToken();
      failed(error.message);
    }
    if (signal.aborted) return;
    answers.removeAttribute("aria-busy");
  }

  /** A control changed: ask again, when there was no change for a moment. */
  function soon() {
    clearTimeout(timer);
    timer = setTimeout(() => fields.q.value.trim() && ask(), PAUSE);
  }

  function failed(sentence) {
    status.replaceChildren(`${sentence} `,
      make("button", { type: "button", onclick: () => ask() }, "Ask again"));
  }

  const place = (own, id) => own.passages.findIndex((one) => one.id === id);

  /** Put an event into what is known of the question. */
  function take(own, event) {
    const entry = own.entries[event.method];
    switch (event.event) {
      case "begin": own.command = event.command; break;
      case "place":
        status.textContent = event.ahead === 1
          ? "One question is before yours." : `${event.ahead} questions are before yours.`;
        break;
      case "busy": case "stopping":
        own.told = true;
        failed(event.event === "busy" ? "Too many people are asking right now; try again in a moment."
          : "The server is being stopped.");
        break;
      case "passages": own.passages.push(...event.passages); break;
      case "answer":
        own.entries[event.method] = {
          ...event,
          weights: event.evidence.map((one) =>
            [place(own, one.passage_id), one.weight, one.prior]),
          tokens: event.tokens?.map(({ token, weights }) => ({ token,
            weights: Object.fromEntries(Object.entries(weights).map(
              ([id, value]) => [place(own, id), value])) })),
        };
        say(own, `${event.method} answers: ${event.text || "nothing"}.`);
        break;
      case "detail":
        entry.typed = event.typed;
        if (event.loo) {
          entry.loo = event.loo;
          entry.weights = entry.evidence.map((one) =>
            [place(own, one.passage_id), one.weight, one.prior, event.loo[one.passage_id]]);
        }
        entry.spans = event.spans?.map((one) => ({ ...one, at: place(own, one.passage_id) }));
        entry.tokens ??= event.tokens?.map((one) => ({ ...one,
          neighbours: one.neighbours?.map((near) => ({ ...near, at: place(own, near.passage_id) })) }));
        break;
      case "failed":
        own.failed[event.method] = event.sentence;
        say(own, `${event.method} does not answer: ${event.sentence}`);
        break;
      case "error":
        own.told = true;
        failed(event.sentence);
        break;
      case "end":
        own.done = true;
        own.cut = event.cut;
        for (const one of own.passages) one.cut = event.cut[one.id];
        status.textContent = `All have answered, in ${event.seconds.toFixed(1)} seconds.`;
    }
  }

  function say(own, sentence) {
    const all = about.methods.length;
    const now = Object.keys({ ...own.entries, ...own.failed }).length;
    status.textContent = `${sentence} ${now} of ${all}.`;
  }

  // --- what is shown ----------------------------------------------------------------------------

  const open = new Set(); // the parts of cards that are open, which a new drawing must keep

  /** Draw the whole, and leave the focus, an open part and a text that is being edited as they are. */
  function draw() {
    const focused = document.activeElement;
    const key = answers.contains(focused) ? focused.dataset.key : undefined;
    const draft = answers.querySelector("textarea.explorer-edit")?.value;
    answers.replaceChildren(
      make("h2", { class: "explorer-question", id: "explorer-question", tabindex: "-1" },
        asked.ask.question),
      make("div", { class: "explorer-methods" }, ...about.methods.map(drawn)),
      make("h3", {}, "The passages"),
      ...asked.passages.map((one, at) => shown(one, at, draft)),
      away());
    if (key) answers.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
  }

  /** Draw one card anew, and the passages if it marks them. */
  function redraw(name) {
    if (asked.entries[name].spans) return draw();
    const old = answers.querySelector(`[data-method="${CSS.escape(name)}"]`);
    if (old.contains(document.activeElement)) return draw();
    return old.replaceWith(drawn(name));
  }

  function drawn(name) {
    const entry = asked.entries[name];
    if (!entry) {
      const said = asked.failed[name];
      return make("article", { class: "explorer-method", "data-method": name },
        make("h3", {}, name), make("p", { class: "explorer-sure" }, said ?? "…"));
    }
    const made = card(name, entry, asked.passages,
      { measure: about.measures[name], typed: asked.ask.typed });
    for (const [at, link] of made.querySelectorAll("a, summary, [tabindex]").entries()) {
      link.dataset.key = `${name} ${at}`;
    }
    for (const part of made.querySelectorAll("details")) {
      const own = `${name} ${part.dataset.more}`;
      part.open = open.has(own);
      part.addEventListener("toggle", () => (part.open ? open.add(own) : open.delete(own)));
    }
    return made;
  }

  function shown(one, at, draft) {
    const button = (key, text, onclick) =>
      make("button", { type: "button", onclick, "data-key": `${key} ${one.id}`,
        "aria-describedby": `explorer-title-${at}` }, text);
    const change = () => { editing = undefined; ask(); };
    const controls = make("div", { class: "explorer-steps" },
      button("strike", one.struck ? "Put back" : "Strike out", () => {
        if (!struck.delete(one.id)) struck.add(one.id);
        change();
      }),
      button("edit", "Edit", () => {
        editing = one.id;
        draw();
        answers.querySelector("textarea.explorer-edit").focus();
      }),
      one.edited ? button("undo", "Undo the edit", () => { edited.delete(one.id); change(); }) : "");
    let body;
    if (editing === one.id) {
      const text = make("textarea", { class: "explorer-edit", rows: "6", "data-key": "draft",
        maxlength: `${about.limits.edited}`, "aria-label": `What passage ${at + 1} says` });
      text.value = draft ?? one.text;
      body = make("div", {}, text, make("div", { class: "explorer-steps" },
        button("apply", "Ask with this text", () => {
          if (text.value === one.own_text) edited.delete(one.id);
          else edited.set(one.id, text.value);
          change();
        }),
        button("leave", "Leave it as it was", () => {
          editing = undefined;
          draw();
          answers.querySelector(`[data-key="${CSS.escape(`edit ${one.id}`)}"]`).focus();
        })));
    }
    const spans = asked.entries.realm?.spans?.filter((span) => span.at === at) ?? [];
    const made = passage(one, at, { spans, controls: [controls], body });
    made.querySelector("h4").id = `explorer-title-${at}`;
    return made;
  }

  /** What can be taken away: the address, the command line, everything as JSON. */
  function away() {
    const command = make("pre", { tabindex: "0", "aria-label": "Command line" }, asked.command ?? "");
    const changed = asked.passages.some((one) => one.struck || one.edited) || asked.ask.typed;
    return make("section", { class: "explorer-away" },
      make("h3", {}, "Take it along"),
      make("p", {}, "On the command line:"), command,
      changed ? make("p", { class: "explorer-sure" },
        "It cannot strike out or edit passages, nor weigh an answer that is typed.") : "",
      make("div", { class: "explorer-steps" },
        copier("Copy the command line", () => asked.command),
        copier("Copy the link", () => location.href),
        copier("Copy all as JSON", () => JSON.stringify(asJson(), null, 2))));
  }

  function asJson() {
    const { ask: settings, passages, entries, failed: without, command } = asked;
    const methods = Object.fromEntries(Object.entries(entries).map(([name, entry]) => {
      const { event: _, method: __, weights: ___, ...rest } = entry;
      return [name, rest];
    }));
    return { ...settings, command, passages, methods, failed: without };
  }

  function copier(text, what) {
    const copy = async () => {
      try {
        await navigator.clipboard.writeText(what());
      } catch { // there is none on an address that is not this machine, or it is not allowed
        const field = make("textarea", { "aria-label": "Text to copy" });
        field.value = what();
        root.append(field);
        field.select();
        document.execCommand("copy");
        field.remove();
      }
      status.textContent = `${text.replace("Copy", "Copied")}.`;
    };
    return make("button", { type: "button", "data-key": text, onclick: copy }, text);
  }

  // --- the controls -----------------------------------------------------------------------------

  function labelled(text, field, more = {}) {
    return make("label", more, text, field);
  }

  function number(name, label, attributes) {
    fields[name] = make("input", { type: "number", id: `explorer-${name}`, oninput: soon,
      ...attributes });
    return labelled(label, fields[name]);
  }

  function controls() {
    const { defaults, limits } = about;
    fields.q = make("input", { type: "text", id: "explorer-q", maxlength: `${limits.question}`,
      autocomplete: "off", enterkeyhint: "search" });
    fields.answer = make("input", { type: "text", id: "explorer-answer", oninput: soon,
      maxlength: `${limits.typed}`, autocomplete: "off" });
    fields.retriever = make("select", { id: "explorer-retriever", onchange: () => ask() },
      ...about.retrievers.map((value) => make("option", { value }, value)));
    fields.free = make("input", { type: "checkbox", id: "explorer-free", onchange: () => ask() });
    const mixing = defaults.lam === null ? [] : [
      number("lambda", "λ of kNN-LM", { min: "0", max: "1", step: "any", required: "" }),
      number("temperature", "Temperature", { min: "0.001", max: "1000000", step: "any",
        required: "" }),
    ];
    const submit = (event) => {
      event.preventDefault();
      if (fields.q.value.trim() !== asked?.ask.question) { struck.clear(); edited.clear(); }
      ask(true);
    };
    return make("form", { class: "explorer-filters", role: "search", onsubmit: submit },
      labelled("Question", fields.q, { class: "explorer-find" }),
      make("button", { type: "submit", class: "explorer-ask" }, "Ask"),
      about.examples?.length
        ? make("div", { class: "explorer-examples", role: "group", "aria-label": "Examples" },
          ...about.examples.map((text) => make("button", { type: "button",
            onclick: () => { fields.q.value = text; struck.clear(); edited.clear(); ask(true); } },
          text)))
        : "",
      make("div", { class: "explorer-settings", role: "group", "aria-label": "Settings" },
        number("k", "Passages (k)", { min: "1", max: `${limits.k}`, required: "" }),
        labelled("Retriever", fields.retriever),
        number("beams", "Beams", { min: "1", max: `${limits.beams}`, required: "" }),
        ...mixing,
        labelled("Write freely", fields.free, { class: "explorer-check",
          title: "otherwise answers are words of the passages" }),
        labelled("Probability of this answer", fields.answer, { class: "explorer-find" })));
  }

  /** Let the controls say what the address says. */
  function follow() {
    const state = new URLSearchParams(location.hash.slice(1));
    fields.q.value = state.get("q") ?? "";
    fields.answer.value = state.get("answer") ?? "";
    for (const [name, key] of Object.entries(SETTINGS)) {
      if (fields[name]) fields[name].value = state.get(name) ?? String(about.defaults[key]);
    }
    fields.free.checked = state.has("free") ? state.get("free") === "1" : about.defaults.free;
    struck.clear();
    for (const id of state.getAll("strike")) struck.add(id);
    edited.clear();
    for (const [name, text] of state) {
      if (name.startsWith("text:")) edited.set(name.slice(5), text);
    }
    if (fields.q.value) ask();
    else {
      running.abort();
      asked = undefined;
      answers.replaceChildren();
      status.textContent = `All methods answer from ${about.passages ?? "the passages"}.`;
    }
  }

  /** The token of an address, kept as long as the tab is open. */
  function takeToken() {
    const state = new URLSearchParams(location.hash.slice(1));
    if (!state.has("token")) return;
    sessionStorage.setItem(TOKEN, state.get("token"));
    state.delete("token");
    history.replaceState(null, "", `#${state}`);
  }

  function askToken() {
    const field = make("input", { type: "password", id: "explorer-token", autocomplete: "off" });
    const submit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(TOKEN, field.value);
      start();
    };
    root.replaceChildren(make("form", { class: "explorer-filters", onsubmit: submit },
      labelled("Token of this server", field, { class: "explorer-find" }),
      make("button", { type: "submit" }, "Use it"),
      make("p", { role: "alert" }, sessionStorage.getItem(TOKEN)
        ? "The server does not take this token." : "This server asks for a token.")));
    field.focus();
  }

  async function start() {
    takeToken();
    try {
      about = await (await call("api/about")).json();
    } catch (error) {
      if (error.token) return askToken();
      return root.replaceChildren(make("p", { role: "alert" }, `${error.message} `,
        make("button", { type: "button", onclick: start }, "Try again")));
    }
    root.replaceChildren(controls(), status, answers);
    follow();
    root.dataset.ready = "true";
  }

  addEventListener("popstate", () => { takeToken(); if (about) follow(); });
  start();
})();
