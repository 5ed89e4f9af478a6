// Geometry of the page: texts that overlap, words that are broken, and controls without a name of their own.
(() => {
  const isShown = element => {
    if (!element.checkVisibility({ visibilityProperty: true })) return false;
    for (let at = element; at; at = at.parentElement) {
      if (getComputedStyle(at).clipPath !== "none") return false;
    }
    return true;
  };
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.data.trim() && isShown(node.parentElement)) texts.push(node);
  }
  // The part of a box that no ancestor cuts off.
  const clip = (box, element) => {
    let { left, right, top, bottom } = box;
    for (let at = element; at && at !== document.body; at = at.parentElement) {
      if (getComputedStyle(at).overflow === "visible") continue;
      const frame = at.getBoundingClientRect();
      [left, right] = [Math.max(left, frame.left), Math.min(right, frame.right)];
      [top, bottom] = [Math.max(top, frame.top), Math.min(bottom, frame.bottom)];
    }
    return { left, right, top, bottom, width: right - left, height: bottom - top };
  };
  const range = document.createRange();
  const boxes = [];
  for (const node of texts) {
    range.selectNodeContents(node);
    for (const whole of range.getClientRects()) {
      const box = clip(whole, node.parentElement);
      if (box.width > 1 && box.height > 1) boxes.push({ box, text: node.data.trim().slice(0, 40), node });
    }
  }
  boxes.sort((one, other) => one.box.top - other.box.top);
  const overlaps = [];
  boxes.forEach((one, index) => {
    for (let next = index + 1; next < boxes.length && boxes[next].box.top < one.box.bottom - 3; next++) {
      const other = boxes[next];
      const width = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
      if (other.node !== one.node && width > 2) overlaps.push(`${one.text} / ${other.text}`);
    }
  });
  const broken = [];
  for (const node of texts) {
    if (!node.parentElement.closest("button, th, summary, .badge, .result, .button, nav a")) continue;
    for (const word of node.data.matchAll(/[^\s\-/]+/g)) {
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1) broken.push(word[0]);
    }
  }
  return {
    overflow: Math.max(0, document.documentElement.scrollWidth - innerWidth),
    overlaps: overlaps.slice(0, 5),
    broken: broken.slice(0, 5),
  };
})()
