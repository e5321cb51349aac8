declare module "react-test-renderer" {
  import type { ReactNode } from "react";
  export function act(f: () => void | Promise<void>): Promise<void>;
  export function create(node: ReactNode): { update(node: ReactNode): void; unmount(): void; toJSON(): unknown };
}
