// The theme: light, dark, or as the system. Loaded before the page is drawn, so that the page never flashes in another
// theme; therefore this file is not a module.
(() => {
  const KEY = "trio-hub-theme";
  const NAMES = ["system", "light", "dark"];

  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // the browser does not allow storage
    }
  };
  let current = NAMES.includes(stored()) ? stored() : "system";

  const apply = () => {
    if (current === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = current;
  };
  apply();

  const changed = () => document.dispatchEvent(new CustomEvent("theme"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => (button.textContent = `Theme: ${current}`);
    show();
    button.addEventListener("click", () => {
      current = NAMES[(NAMES.indexOf(current) + 1) % NAMES.length];
      try {
        localStorage.setItem(KEY, current);
      } catch {
        // without storage, the choice lasts as long as the page
      }
      apply();
      show();
      changed();
    });
  });
})();
