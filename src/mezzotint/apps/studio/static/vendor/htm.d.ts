declare const htm: {
  bind<N>(
    h: (type: unknown, props: object | null, ...children: never[]) => N,
  ): (strings: TemplateStringsArray, ...values: unknown[]) => N;
};
export default htm;
