// Keeps the page true while it is open. Every two seconds it asks whether anything changed (an unchanged answer is a
// bodiless 304); only then does it fetch its own address again and exchange the parts marked data-live.
"use strict";

(() => {
  const interval = 2000;
  const url = document.body.dataset.changes;
  if (!url) return;
  let stamp = document.body.dataset.stamp;
  const pulse = document.getElementById("pulse");

  function say(state, words) {
    pulse.className = `pulse ${state}`;
    if (pulse.textContent !== words) pulse.textContent = words;
  }

  // Children that did not change stay the same nodes, so pictures do not flicker and a reader's place is kept.
  function exchange(old, fresh) {
    for (const details of fresh.querySelectorAll("details[id]")) {
      const before = document.getElementById(details.id);
      if (before) details.open = before.open;
    }
    if (old.isEqualNode(fresh)) return;
    for (const attribute of fresh.attributes) old.setAttribute(attribute.name, attribute.value);
    for (const name of old.getAttributeNames()) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    if (!fresh.hasAttribute("data-keyed")) {
      old.replaceChildren(...fresh.childNodes);
      return;
    }
    const kept = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
    const children = [...fresh.children].map((child) => {
      const same = kept.get(child.id);
      return same && same.isEqualNode(child) ? same : child;
    });
    old.replaceChildren(...children);
  }

  async function refresh() {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(`the page answered ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live]")) {
      const part = fresh.getElementById(old.id);
      if (part) exchange(old, document.adoptNode(part));
      else old.replaceChildren();
    }
    document.dispatchEvent(new Event("coldchain:changed"));
    // What the page itself is of: it may say that its counters are behind, and is asked for again then.
    return fresh.body.dataset.stamp;
  }

  async function look() {
    if (document.hidden) return;
    try {
      const answer = await fetch(url, { cache: "no-store", headers: { "If-None-Match": stamp } });
      if (answer.status === 200) {
        stamp = await refresh();
      } else if (answer.status !== 304) {
        throw new Error(`the site answered ${answer.status}`);
      }
      say("on", "Live");
    } catch (error) {
      say("off", "No connection, trying again");
    }
  }

  async function keepLooking() {
    await look();
    setTimeout(keepLooking, interval);
  }

  document.addEventListener("visibilitychange", look);
  setTimeout(keepLooking, interval);
})();
