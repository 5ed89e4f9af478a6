// `bridge serve` prints a link with the token after the #. Browsers do not send that part to a server or proxy.
"use strict";
const match = location.hash.match(/^#token=(.+)$/);
if (match) {
  history.replaceState(null, "", location.pathname + location.search);
  document.getElementById("token").value = decodeURIComponent(match[1]);
  document.getElementById("login").submit();
}
