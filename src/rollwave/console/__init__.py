"""The console: pages for operators, served by `rollwave serve` beside the API. Needs the extra ``server``."""
