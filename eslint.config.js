import js from "@eslint/js";
import globals from "globals";

const GRADIO = /gradio-|token-remove|svelte-|multiselect|role=.?(tab|tabpanel|combobox|listbox)\b|__type__|-tab-button|> button/;

export default [
  js.configs.recommended,
  {
    rules: {
      "eqeqeq": "error",
      "no-var": "error",
      "prefer-const": ["error", { destructuring: "all" }],
      "no-implicit-globals": "error",
    },
  },
  { files: ["app/static/js/**", "app/static/annotate/**"], languageOptions: { globals: globals.browser } },
  // The arithmetic has no page: node tests it.
  { files: ["app/static/js/math/**", "app/static/annotate/state/**"], languageOptions: { globals: Object.fromEntries(Object.keys(globals.browser).map((name) => [name, "off"])) } },
  { files: ["tests/js/**"], languageOptions: { globals: globals.node } },
  {
    // Gradio's class names and ids are known in one module.
    files: ["app/static/js/**"],
    ignores: ["app/static/js/gradio.js"],
    rules: {
      "no-restricted-syntax": ["error", ...["Literal[value=", "TemplateElement[value.raw="].map((node) => ({
        selector: `${node}${GRADIO}]`,
        message: "What Gradio calls its elements is known in app/static/js/gradio.js only.",
      }))],
    },
  },
];
