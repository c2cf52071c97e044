/**
 * A log that grows: text is only ever appended, and the view follows it unless the reader has scrolled up.
 */

import { act, button, check, h } from "./dom.js";

const NEAR_END = 30; // pixels

export function logView(label) {
  const text = h("pre", { class: "log", tabindex: "0", role: "log", "aria-label": label });
  const follow = check("Follow", { checked: true });
  const older = button("Older lines", (event) => act(event, () => loadOlder()), { class: "small", hidden: true });
  const node = h("div", {}, h("div", { class: "buttons" }, follow.node, older), text);
  let loadOlder = null;
  text.addEventListener("scroll", () => {
    follow.box.checked = text.scrollHeight - text.scrollTop - text.clientHeight < NEAR_END;
  });
  follow.box.addEventListener("change", () => follow.box.checked && toEnd());
  const toEnd = () => (text.scrollTop = text.scrollHeight);
  return {
    node,
    append(more) {
      const isFollowed = follow.box.checked;
      text.append(more);
      if (isFollowed) toEnd();
    },
    prepend(older) {
      text.prepend(older);
    },
    /** load: puts what is before the first line there; null when nothing is. */
    offerOlder(load) {
      loadOlder = load;
      older.hidden = !load;
    },
    clear() {
      text.replaceChildren();
    },
    /** What to say while the log is empty. */
    say(words) {
      text.dataset.empty = words;
    },
  };
}
