// Loaded on every page: relative times, menus, dialogs, forms that are sent once.
import "./dialogs.js";
import "./menus.js";
import "./times.js";
