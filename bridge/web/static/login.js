// The link that `bridge serve` prints carries the token behind the #, which no server and no proxy gets to see.
"use strict";
const found = location.hash.match(/^#token=(.+)$/);
if (found) {
  history.replaceState(null, "", location.pathname + location.search);
  document.getElementById("token").value = decodeURIComponent(found[1]);
  document.getElementById("login").submit();
}
