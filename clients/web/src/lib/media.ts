import { ref, type Ref } from 'vue';

/** Whether a media query holds, as long as the page lives. */
export function useMediaQuery(query: string): Readonly<Ref<boolean>> {
  const list = matchMedia(query);
  const holds = ref(list.matches);
  list.addEventListener('change', () => (holds.value = list.matches));
  return holds;
}
