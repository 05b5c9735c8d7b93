// Puts a sale where its tag stands:
//   <script src="https://shop.example/widget.js" data-sale="sale_1" async></script>
// data-height is the room that is kept until the frame says what it needs, in pixels; data-title names the frame.

(() => {
  const tag = document.currentScript;
  const shop = new URL(tag.src).origin;
  const frame = document.createElement("iframe");
  frame.src = `${shop}/widget/${encodeURIComponent(tag.dataset.sale)}`;
  frame.title = tag.dataset.title ?? "Flash sale";
  Object.assign(frame.style, { display: "block", width: "100%", border: "0", colorScheme: "normal" });
  frame.style.height = `${Number(tag.dataset.height) || 680}px`;
  // The frame answers to whom it hears; both sides look at who speaks.
  frame.addEventListener("load", () => frame.contentWindow.postMessage({ flashsale: "hello" }, shop));
  addEventListener("message", ({ data, origin, source }) => {
    if (origin !== shop || source !== frame.contentWindow || data?.flashsale !== "height") return;
    const height = Math.min(Math.max(Number(data.height) || 0, 100), 4000);
    frame.style.height = `${height}px`;
  });
  tag.after(frame);
})();
