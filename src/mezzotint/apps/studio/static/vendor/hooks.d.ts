type Ended = void | (() => void);
export function useState<T>(first: T | (() => T)): [T, (next: T | ((now: T) => T)) => void];
export function useEffect(work: () => Ended, on?: readonly unknown[]): void;
export function useLayoutEffect(work: () => Ended, on?: readonly unknown[]): void;
export function useRef<T>(first: T): { current: T };
export function useMemo<T>(make: () => T, on: readonly unknown[]): T;
export function useCallback<T>(made: T, on: readonly unknown[]): T;
export function useId(): string;
