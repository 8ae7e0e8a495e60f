// Builds elements. Text only ever goes in as text, so nothing that a user named can become markup.

/** An element with class names and children; strings become text, null is left out. */
export function el(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Sets the text only where it differs, so that a selection in it survives. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Says that the session is over, with the way back in; both pages stand beside admin/. */
export function signInAgain(status) {
  const link = el('a', '', 'Sign in again');
  link.href = 'admin/sign_in';
  status.replaceChildren('You are signed out. ', link, '.');
}
