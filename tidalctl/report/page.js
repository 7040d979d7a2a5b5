"use strict";
// What the page has besides: times of a bar at the pointer, zoom, and a colour picked out of its key. Without it, all is there.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  for (const bar of document.querySelectorAll("i[title], .moment[title]")) {
    bar.dataset.tip = bar.title;
    bar.removeAttribute("title");
  }
  const show = (event) => {
    const bar = event.target.closest && event.target.closest("[data-tip]");
    tip.hidden = !bar;
    if (!bar) return;
    tip.textContent = bar.dataset.tip;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 8)) + "px";
    tip.style.top = (event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 18) + "px";
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", () => { tip.hidden = true; }, true);

  // as the page has it: at most eight steps of 1, 2 or 5 to what is seen at once
  const ruler = (scroll, zoom) => {
    const falls = scroll.querySelector(".falls"), back = scroll.querySelector(".over-all"), axis = scroll.querySelector(".axis");
    const all = Number(falls.dataset.window), seen = all / zoom, size = 10 ** Math.floor(Math.log10(seen / 8));
    const step = [1, 2, 5, 10].map((n) => n * size).find((n) => seen / n <= 8) || 10 * size;
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    back.querySelectorAll(".grid").forEach((line) => line.remove());
    axis.textContent = "";
    for (let n = 0; n * step <= all * (1 + 1e-9); n++) {
      const line = document.createElement("span"), number = document.createElement("span");
      line.className = "grid";
      line.style.left = number.style.left = (100 * n * step) / all + "%";
      number.textContent = Number((n * step).toFixed(digits)) + (zoom > 1 || (n + 1) * step > all ? " s" : "");
      back.prepend(line);
      axis.append(number);
    }
  };

  for (const scroll of document.querySelectorAll(".scroll")) {
    let zoom = 1;
    const label = () => parseFloat(getComputedStyle(scroll).getPropertyValue("--label"));
    // the moment under x stays where it is
    const set = (wanted, x) => {
      const before = (scroll.scrollLeft + x - label()) / zoom;
      zoom = Math.max(1, Math.min(wanted, 200));
      scroll.style.setProperty("--zoom", zoom);
      scroll.scrollLeft = before * zoom + label() - x;
      ruler(scroll, zoom);
    };
    const tools = scroll.previousElementSibling;
    tools.hidden = false;
    tools.addEventListener("click", (event) => {
      const by = event.target.dataset.zoom;
      if (by) set(Number(by) ? zoom * by : 1, scroll.clientWidth / 2);
    });
    scroll.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      set(zoom * Math.exp(-event.deltaY / 300), event.clientX - scroll.getBoundingClientRect().left);
    }, { passive: false });
  }

  for (const item of document.querySelectorAll(".key li")) {
    const light = (on) => {
      document.body.classList.toggle("dim", on);
      for (const bar of document.querySelectorAll("i." + item.dataset.kind)) bar.classList.toggle("lit", on);
    };
    item.addEventListener("pointerenter", () => light(true));
    item.addEventListener("pointerleave", () => light(false));
  }
})();
