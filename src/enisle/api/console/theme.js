document.documentElement.dataset.theme = localStorage.getItem("enisle.theme") ?? ""
