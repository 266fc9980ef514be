// Before the first paint: the theme chosen in this browser, else the system's.
document.documentElement.dataset.theme = localStorage.getItem("enisle.theme") ?? "";
