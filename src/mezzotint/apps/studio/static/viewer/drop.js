export function dropped() {}

export function DropTarget() {
  return null;
}
