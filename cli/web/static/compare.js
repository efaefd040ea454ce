// Two pictures side by side, with the lines of their match and their similarity map.

export function compare() {}
