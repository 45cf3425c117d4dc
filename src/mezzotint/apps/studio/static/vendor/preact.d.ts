export type Child = VNode | string | number | bigint | boolean | null | undefined | object | Child[];
export interface VNode {
  type: unknown;
  props: object;
  key: unknown;
}
export type Component<P> = (props: P & { children?: Child }) => Child;
export function h(type: unknown, props: object | null, ...children: Child[]): VNode;
export function render(what: Child, where: Element): void;
export const Fragment: Component<object>;
