// What the page has besides the DOM's own types.
interface Window {
  Plotly: any; // plotly.js, which the page loads later
}
// A listener on the document gets an event's target of any kind, and finds out which.
interface EventTarget {
  closest: any;
  matches: any;
  id: any;
  open: any;
  checked: any;
  value: any;
  type: any;
  parentElement: any;
}
interface Event {
  detail: any;
}
// A selector says of what kind the elements are that it finds.
interface ParentNode {
  querySelector(selectors: string): any;
  querySelectorAll(selectors: string): NodeListOf<any>;
}
