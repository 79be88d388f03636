// What a page lacks for those who don't see it, or see it badly: looked for in both themes, on a phone
// and on a desk. PAGE is its address; the report is a list of four.

const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const luminance = (rgb) =>
  rgb.reduce((sum, c, i) => sum + linear(c / 255) * [0.2126, 0.7152, 0.0722][i], 0);
const over = ({ rgb, a }, under) => rgb.map((c, i) => a * c + (1 - a) * under[i]);

/** A computed colour; null for what is no plain one, such as a mixture. */
function colour(text) {
  const found = text.match(/^rgba?\(([^)]*)\)/);
  if (!found) return null;
  const [r, g, b, a = 1] = found[1].split(/[ ,/]+/).map(Number);
  return { rgb: [r, g, b], a };
}

/** The colour behind an element; null where it is a mixture. */
function ground(element, style) {
  const layers = [];
  for (let each = element; each; each = each.parentElement) {
    const found = colour(style(each).backgroundColor);
    if (!found) return null;
    layers.push(found);
    if (found.a === 1) break;
  }
  return layers.reduceRight((under, layer) => over(layer, under), [255, 255, 255]);
}

/** The contrast of an element's own text to what is behind it, and what it must be at least. */
function contrast(element, style) {
  const ink = colour(style(element).color);
  const paper = ground(element, style);
  if (!ink || !paper) return [Infinity, 0];
  const both = [luminance(over(ink, paper)), luminance(paper)].sort((one, other) => one - other);
  return [(both[1] + 0.05) / (both[0] + 0.05), parseFloat(style(element).fontSize) >= 24 ? 3 : 4.5];
}

const named = (element) =>
  element.getAttribute("aria-label") || element.title || element.labels?.length ||
  element.textContent.trim() || element.querySelector('img[alt]:not([alt=""])');

function look(page, style) {
  const article = page.querySelector("article");
  const all = (selector, within = article) => [...within.querySelectorAll(selector)];
  const drawn = (element) => element.getClientRects().length > 0;
  const said = all("*").filter((element) => drawn(element) &&
    !element.closest("svg, mjx-container, [aria-hidden=true], .headerlink") &&
    [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  const levels = all("h1, h2, h3, h4, h5, h6").filter(drawn).map((h) => Number(h.tagName[1]));
  const wide = all(".pst-scrollable-table-container, .cell_output .text_html, .cell_output figure")
    .filter((element) => element.scrollWidth > element.clientWidth + 1);
  const about = (element) => element.outerHTML.slice(0, 120);
  return {
    faint: said.flatMap((element) => {
      const [is, must] = contrast(element, style);
      return is < must ? [`${is.toFixed(2)} ${element.textContent.trim().slice(0, 40)}`] : [];
    }),
    unreachable: wide.filter((e) => e.tabIndex < 0 || !e.getAttribute("aria-label")).map(about),
    skipped: levels.filter((level, at) => level > (at ? levels[at - 1] : 0) + 1),
    unnamed: all("button, summary, a[href], input, select", page)
      .filter((element) => drawn(element) && !named(element)).map(about),
    empty: all("th").filter((th) => !th.textContent.trim()).map(about),
  };
}

const out = [];
for (const mode of ["light", "dark"]) {
  for (const width of [390, 1280]) {
    localStorage.setItem("mode", mode);
    localStorage.setItem("theme", mode);
    const frame = document.createElement("iframe");
    frame.style.cssText = `width: ${width}px; height: 900px; border: 0`;
    frame.src = PAGE;
    document.body.append(frame);
    await new Promise((done) => { frame.onload = done; });
    await new Promise((done) => setTimeout(done, 500));
    const { contentDocument: page, contentWindow: shown } = frame;
    out.push({ asked: `${mode} ${width}`, ...look(page, (e) => shown.getComputedStyle(e)) });
    frame.remove();
  }
}
return out;
