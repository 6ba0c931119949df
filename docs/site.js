// A notebook that was read to its end gets a tick in the side bar; only this browser remembers it.
document.addEventListener("DOMContentLoaded", () => {
  const key = "chest-ct-course-read";
  let read = [];
  try { read = JSON.parse(localStorage.getItem(key)) || []; } catch { return; }  // switched off
  const here = location.pathname.split("/").slice(-2).join("/");
  const tick = () => document.querySelectorAll(".sidebar-tree a").forEach(
    (link) => link.classList.toggle("read", read.some((page) => link.pathname.endsWith(page))));
  tick();
  if (here.startsWith("notebooks/")) new IntersectionObserver(([end]) => {
    if (!end.isIntersecting || read.includes(here)) return;
    read.push(here);
    localStorage.setItem(key, JSON.stringify(read));
    tick();
  }).observe(document.querySelector("footer"));
});
