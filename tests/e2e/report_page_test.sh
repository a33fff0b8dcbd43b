#!/usr/bin/env bash
# report.html in a real browser, from a file: it draws, reads out, zooms, switches axes, and never complains.
source "$(dirname "$0")/common.sh"

browser=""
for candidate in chromium chromium-browser google-chrome; do
  command -v "$candidate" > /dev/null && browser=$candidate && break
done
if [ -z "$browser" ]; then
  echo "skipped: no chromium to open report.html with"
  exit 0
fi

# What a reader does, and what must come of it. Appended to the page; the verdict is its title.
cat > "$work/reader.html" <<'JS'
<script>
const wrong = window.complaints;
const say = (ok, what) => { if (!ok) wrong.push(what) };
const find = text => [...document.querySelectorAll(".tools button, .legend button")].find(b => b.textContent === text);
const charts_now = () => [...document.querySelectorAll("figure svg")];
const move = (svg, share, type = "pointermove") => {
  const box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent(type, { clientX: box.left + box.width * share, clientY: box.top + 50, pointerId: 1, pointerType: "mouse", bubbles: true }));
};
try {
  Element.prototype.setPointerCapture = () => {};  // the pointer is not a real one
  const drawn = () => charts_now().every(s => [...s.querySelectorAll("path")].some(p => p.getAttribute("d").length > 5));
  say(charts_now().length >= 4, "fewer than four charts");
  say(drawn(), "a chart without a line");
  const ends = [...document.querySelectorAll("svg text.end")].map(t => t.textContent);
  say(new Set(ends).size === ends.length, "a model is named twice at the ends of its lines");
  say(!/NaN|undefined/.test(document.getElementById("page").textContent), "NaN or undefined in the text");
  move(charts_now()[0], .5);
  const tip = document.querySelector(".tip:not([hidden])");
  say(tip && /\d\.\d{4}/.test(tip.textContent), "no loss is read out");
  say([...document.querySelectorAll("svg line[visibility=visible]")].length === charts_now().length, "the rule is not in every chart");
  for (const axis of ["steps", "tokens", "FLOPs", "time"]) {
    find(axis).click();
    say(find(axis).getAttribute("aria-pressed") === "true" && drawn(), "axis " + axis);
  }
  for (const box of document.querySelectorAll(".tools input[type=checkbox]")) { box.click(); say(drawn(), "a log axis") }
  find("tokens").click();
  move(charts_now()[0], .4, "pointerdown"); move(charts_now()[0], .7); move(charts_now()[0], .7, "pointerup");
  say(location.hash.includes("to=") && find("reset zoom"), "dragging does not zoom");
  if (find("reset zoom")) find("reset zoom").click();
  say(!find("reset zoom"), "the zoom stays");
  say(document.documentElement.scrollWidth <= innerWidth, "wider than the window");
  window.more && more(say, find);
} catch (e) { wrong.push(String(e)) }
document.title = wrong.length ? "wrong: " + wrong.join("; ") : "all is well";
</script>
JS

# open_page REPORT [SCRIPT]: opens it as the reader does.
open_page() {
  local page
  page=$(mktemp "$work/XXXXXX.html")
  { echo '<script>window.complaints = []; window.onerror = (m, f, l) => { complaints.push(m + " in line " + l) }</script>'
    cat "$1"; echo "<script>${2:-}</script>"; cat "$work/reader.html"; } > "$page"
  for size in 1280,1000 400,900; do
    timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --window-size=$size --dump-dom "file://$page" > "$work/dom" 2> /dev/null || fail "the browser"
    grep -o '<title>[^<]*' "$work/dom" | tail -n 1 | grep -q 'all is well' || fail "$1 at $size: $(grep -o '<title>[^<]*' "$work/dom" | tail -n 1)"
  done
}

write_text 300
common=(--data "$work/text.txt" --hidden-size 32 --intermediate-size 64 --num-hidden-layers 1 --num-attention-heads 4
  --num-key-value-heads 4 --seq-len 32 --batch-size 2 --eval-batches 1 --threads 1)
"$bin/nf-train" -m ngpt "${common[@]}" --steps 150 --eval-every 10 --save-every 100 --out "$work/run" > /dev/null 2>&1
open_page "$work/run/report.html"

"$bin/nf-compare" -m gqa -m ngpt "${common[@]}" --budget tokens=6k --seeds 2 --out "$work/two" > /dev/null 2>&1
open_page "$work/two/report.html" 'const more = (say, find) => {
  say(document.querySelectorAll(".table tr").length === 3, "the table has not a row for each model");
  say(document.querySelectorAll(".table td.best").length > 0, "nothing is best");
  const lines = () => document.querySelectorAll("figure path[stroke]").length, before = lines();
  find("ngpt").click();
  say(lines() < before, "a model cannot be hidden");
  find("ngpt").click();
  say(lines() === before, "nor shown again");
};'
echo "ok"
